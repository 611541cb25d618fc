"""Pictures side by side: draws of a patch, reconstructions, variations, nearest training patches.

Files of the work directory, each optional:

`variations/real.png`, `patches.png` (rows: a real patch, its draws), `region_N.png`: the tool
`variations`.

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
from ssldiff_jax.report import charts, pictures

_SHOWN_PAIRS = 24


def draws(workdir: pathlib.Path, folder: pathlib.Path, metrics: Mapping[str, Any]) -> str:
    """Draws of single patches beside the real ones, and patches through the autoencoder."""
    parts = []
    source = workdir / "sample" / "variations.png"
    if source.exists():
        parts.append(_rows(source, folder / source.name, 4))
    source = workdir / "autoencoder" / "reconstructions.png"
    if source.exists():
        picture = pictures.copy(source, folder / source.name)
        psnr, ssim = (charts.number(metrics[f"reconstruction_{k}"]) for k in ("psnr", "ssim"))
        parts.append(
            f"<figure>{picture.img('real patches above, reconstructed ones below')}"
            "<figcaption>Above, held-out patches; below, the same through the autoencoder and "
            f"back: PSNR {psnr} dB, SSIM {ssim}.</figcaption></figure>"
        )
    return f'<div class="pair">{"".join(parts)}</div>' if parts else ""


def variations(workdir: pathlib.Path, folder: pathlib.Path, patch_px: int) -> str:
    """What the tool `variations` drew: a region again and again, and its patches."""
    source = workdir / "variations"
    if not (source / "real.png").exists():
        return ""
    regions = sorted(source.glob("region_*.png"), key=lambda p: int(p.stem.rpartition("_")[2]))
    figures = [_figure(source / "real.png", folder / "variation_real.png", "real")]
    figures += [
        _figure(path, folder / f"variation_{i}.png", f"draw {i + 1}")
        for i, path in enumerate(regions)
    ]
    hint = "One image, and what is drawn from its embeddings with different noise."
    body = f'<p class="hint">{hint}</p><div class="gallery">{"".join(figures)}</div>'
    page = source / "patches.png"
    if page.exists():
        count = pictures.png_size(page)[1] // patch_px - 1
        body += _rows(page, folder / "variation_patches.png", count)
    return body


def nearest(workdir: pathlib.Path, folder: pathlib.Path) -> str:
    """Generated patches, each beside the training patch that is most like it.

    Raises ValueError where `nearest.png` has no row of two squares for every pair.
    """
    results = workdir / "evaluate" / "results.json"
    found = atomic.read_json(results).get("memorisation") if results.exists() else None
    if not found:
        return ""
    source, pairs = workdir / "evaluate" / "nearest.png", found["pairs"]
    body = (
        f'<p class="hint">{_counted(found)} At the left a generated patch, at the right the '
        "training patch whose embedding is nearest to its own.</p>"
    )
    if not (pairs and source.exists()):
        return body
    height, width = pictures.png_size(source)
    side = width // 2
    if (height, width) != (side * len(pairs), 2 * side):
        raise ValueError(
            f"{source} must be {len(pairs)} rows of two squares, got {height} × {width} px"
        )
    image = pyvips.Image.new_from_file(str(source), revalidate=True)
    figures = [
        _pair(image.crop(0, i * side, 2 * side, side), folder / f"nearest_{i}.png", pair)
        for i, pair in enumerate(pairs[:_SHOWN_PAIRS])
    ]
    return f'{body}<div class="gallery pairs">{"".join(figures)}</div>'


def _counted(found: Mapping[str, Any]) -> str:
    """How many are copies, or why that cannot be told."""
    if found["fraction"] is None:
        reason = html.escape(found["interval"].partition(": ")[2])
        return f"How many generated patches are copies cannot be told: {reason}."
    return (
        f"<b>{_percent(found['fraction'])}</b>{_chance(found)} of generated patches have a "
        f"training patch of a similarity above {charts.number(found['threshold'])}."
    )


def _percent(share: float) -> str:
    return f"{charts.number(100 * share)} %"


def _chance(found: Mapping[str, Any]) -> str:
    """The interval of the share, and what is expected where nothing is copied, if they are told."""
    if "low" not in found:
        return ""
    low, high = charts.number(100 * found["low"]), _percent(found["high"])
    searched = f"; {_percent(found['power'])} of training were searched" if "power" in found else ""
    expected = _percent(found["expected"])
    return f" ({low} … {high}; {expected} are expected if none is a copy{searched})"


def _pair(image: pyvips.Image, target: pathlib.Path, pair: Mapping[str, Any]) -> str:
    atomic.write_atomic(target, lambda path: image.pngsave(str(path)))
    picture = pictures.Picture(target.name, image.height, image.width)
    similarity = charts.number(pair["similarity"])
    said = f"{similarity} {pair.get('name', '')}".strip()
    alt = f"generated and nearest training patch, similarity {similarity}"
    return f"<figure>{picture.img(alt)}<figcaption>{html.escape(said)}</figcaption></figure>"


def _figure(source: pathlib.Path, target: pathlib.Path, said: str) -> str:
    picture = pictures.copy(source, target)
    return f"<figure>{picture.img(said)}<figcaption>{said}</figcaption></figure>"


def _rows(source: pathlib.Path, target: pathlib.Path, count: int) -> str:
    """Rows of a real patch and `count` draws."""
    picture = pictures.copy(source, target)
    names = ("real", *(f"draw {i + 1}" for i in range(count)))
    heads = "".join(f"<span>{name}</span>" for name in names)
    alt = f"a real patch and {count} draws of it in every row"
    return (
        f'<figure class="variations" style="--cols:{1 + count}"><div class="heads">{heads}</div>'
        f"{picture.img(alt)}<figcaption>Patches drawn alone from the embedding of the real one at "
        "the left, with different noise.</figcaption></figure>"
    )
