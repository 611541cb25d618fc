"""Pictures side by side: patches, reconstructions, variations, nearest training patches.

Files of the work directory, each optional:

`sample/variations.png`: rows of a real patch and patches generated from its embedding.

`autoencoder/reconstructions.png`: real squares above, reconstructed ones below.

`variations/real.png`, `patches.png` (rows as above), `region_N.png`: the tool `variations`.

`evaluate/results.json`, key `memorisation`: `{"threshold": 0.95, "fraction": 0.01, "pairs":
[{"similarity": 0.97, "name": "case 3"}, …]}`. `fraction` of generated patches have a training
patch of a similarity above `threshold`; where it is None, `interval` says why. `name`, what the
training patch is called, may be left out.

`evaluate/nearest.png`: a row for each of these pairs, in their order: the generated patch at the
left, the nearest training patch at the right, both squares of one size.
"""

import html
import pathlib
from collections.abc import Mapping
from typing import Any

import pyvips

from ssldiff_jax.formats import atomic
from ssldiff_jax.report import charts, pictures, units

_SHOWN_PAIRS = 24


def patches(workdir: pathlib.Path, folder: pathlib.Path, patch_px: int, mpp: float | None) -> str:
    """Patches generated one by one, beside the real ones whose embeddings condition them."""
    source = workdir / "sample" / "variations.png"
    return _rows(source, folder / source.name, patch_px, mpp) if source.exists() else ""


def reconstructions(workdir: pathlib.Path, folder: pathlib.Path, metrics: Mapping[str, Any]) -> str:
    """Squares through the autoencoder and back."""
    source = workdir / "autoencoder" / "reconstructions.png"
    if not source.exists():
        return ""
    picture = pictures.copy(source, folder / source.name)
    psnr, ssim = (charts.number(metrics[f"reconstruction_{k}"]) for k in ("psnr", "ssim"))
    side = picture.height // 2
    size = units.size(side, side, metrics["data"]["mpp"])
    return (
        f"<figure>{picture.img('real squares above, reconstructed ones below')}"
        "<figcaption>Above, held-out squares; below, the same after encoding and decoding. No "
        f"generated image is sharper than these. PSNR {psnr} dB, SSIM {ssim} (1 is ideal). Each "
        f"{size}.</figcaption></figure>"
    )


def variations(
    workdir: pathlib.Path, folder: pathlib.Path, patch_px: int, mpp: float | None
) -> str:
    """What the tool `variations` made: a region generated again and again, and its patches."""
    source = workdir / "variations"
    if not (source / "real.png").exists():
        return ""
    # By number: as text, 10 comes before 9.
    regions = sorted(source.glob("region_*.png"), key=lambda p: int(p.stem.rpartition("_")[2]))
    figures = [_figure(source / "real.png", folder / "variation_real.png", "real", mpp)]
    figures += [
        _figure(path, folder / f"variation_{i}.png", f"generated {i + 1}", mpp)
        for i, path in enumerate(regions)
    ]
    hint = "A real image, and images generated from its embeddings with different noise."
    body = f'<p class="hint">{hint}</p><div class="gallery">{"".join(figures)}</div>'
    page = source / "patches.png"
    if page.exists():
        body += _rows(page, folder / "variation_patches.png", patch_px, mpp)
    return body


def nearest(workdir: pathlib.Path, folder: pathlib.Path, mpp: float | None) -> str:
    """Generated patches, each beside the training patch that is most like it.

    Raises ValueError where `nearest.png` has no row of two squares for every pair.
    """
    results = workdir / "evaluate" / "results.json"
    memorisation = atomic.read_json(results).get("memorisation") if results.exists() else None
    if not memorisation:
        return ""
    source, pairs = workdir / "evaluate" / "nearest.png", memorisation["pairs"]
    if not (pairs and source.exists()):
        return f'<p class="hint">{_counted(memorisation)}</p>'
    height, width = pictures.png_size(source)
    side = width // 2
    if (height, width) != (side * len(pairs), 2 * side):
        raise ValueError(
            f"{source} must be {len(pairs)} rows of two squares, got {height} × {width} px"
        )
    # libvips keeps what it read by name: without this a file that was written again has its old
    # pixels.
    image = pyvips.Image.new_from_file(str(source), revalidate=True)
    figures = [
        _pair(image.crop(0, i * side, 2 * side, side), folder / f"nearest_{i}.png", pair)
        for i, pair in enumerate(pairs[:_SHOWN_PAIRS])
    ]
    return (
        f'<p class="hint">{_counted(memorisation)} At the left a generated patch, at the right the '
        "training patch whose embedding, by the judge, is nearest to its own; most similar pairs "
        f"first, with their cosine similarity. Each patch {units.size(side, side, mpp)}.</p>"
        f'<div class="gallery pairs">{"".join(figures)}</div>'
    )


def _counted(result: Mapping[str, Any]) -> str:
    """How many may be copies, or why that is not known."""
    if result["fraction"] is None:
        reason = html.escape(result["interval"].partition(": ")[2])
        return f"How many generated patches may be copies is not known: {reason}."
    return (
        f"<b>{_percent(result['fraction'])}</b>{_chance(result)} of generated patches have a "
        f"training patch with a similarity above {charts.number(result['threshold'])}, which few "
        "held-out real patches have: possible copies."
    )


def _percent(share: float) -> str:
    return f"{charts.number(100 * share)} %"


def _chance(result: Mapping[str, Any]) -> str:
    """The interval of the share, and what is expected where nothing is copied, if it has them."""
    if "low" not in result:
        return ""
    low, high = charts.number(100 * result["low"]), _percent(result["high"])
    searched = (
        f"; {_percent(result['power'])} of the training data were searched"
        if "power" in result
        else ""
    )
    expected = _percent(result["expected"])
    return f" (95 % interval {low} … {high}; {expected} are expected if none is a copy{searched})"


def _pair(image: pyvips.Image, target: pathlib.Path, pair: Mapping[str, Any]) -> str:
    atomic.write_atomic(target, lambda path: image.pngsave(str(path)))
    picture = pictures.Picture(target.name, image.height, image.width)
    similarity = charts.number(pair["similarity"])
    said = f"{similarity} {pair.get('name', '')}".strip()
    alt = f"generated and nearest training patch, similarity {similarity}"
    return f"<figure>{picture.img(alt)}<figcaption>{html.escape(said)}</figcaption></figure>"


def _figure(source: pathlib.Path, target: pathlib.Path, said: str, mpp: float | None) -> str:
    picture = pictures.copy(source, target)
    size = units.size(*pictures.png_size(source), mpp)
    return (
        f"<figure>{picture.img(said)}<figcaption>{said} <small>{size}</small></figcaption></figure>"
    )


def _rows(source: pathlib.Path, target: pathlib.Path, patch_px: int, mpp: float | None) -> str:
    """Rows of a real patch and patches generated from its embedding."""
    count = pictures.png_size(source)[1] // patch_px - 1
    picture = pictures.copy(source, target)
    names = ("real", *(f"generated {i + 1}" for i in range(count)))
    heads = "".join(f"<span>{name}</span>" for name in names)
    alt = f"in every row a real patch and {count} patches generated from its embedding"
    return (
        f'<figure class="variations" style="--cols:{1 + count}"><div class="heads">{heads}</div>'
        f"{picture.img(alt)}<figcaption>Each patch is generated alone, from the embedding of the "
        "real patch at the left and with different noise. Each "
        f"{units.size(patch_px, patch_px, mpp)}.</figcaption></figure>"
    )
