"""The figures of a run, gathered from what its stages left in the work directory."""

import pathlib
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from ssldiff_jax.core import digests
from ssldiff_jax.formats import atomic
from ssldiff_jax.report import elapsed

_FEATURES = (
    "embedding_similarity",
    "cell_retrieval_top1",
    "crop_fd_uncorrected",
    "patch_fd_uncorrected",
    "fd_floor_uncorrected",
    "num_cells",
)
_PIXELS = ("layout_correlation", "seams", "patch_borders")
_ENCODER = ("dim", "hash", "retrieval_top1", "effective_rank")
_VARIETY = ("retrieval_of_views", "effective_rank_of_noise", "num_ranked", "num_tested")
"""Of encoders too, None of those that were trained before they were measured."""
# Named one by one: this sub-package comes before the table of steps.
_NO_STEPS = ("report", "generate", "variations", "sweep", "watch", "compare", "study", "export",
             "features", "patch_images", "verify", "compile", "bench", "plan")  # fmt: skip
"""An earlier report, and tools."""
_LAUNCH_ONLY = ("stages", "force", "report", "logging")  # what to run, not what it gives
_JUDGED = ("patches", "large_image_frechet", "structure", "confusion", "denoising_loss",
           "diversity", "levels", "outside")  # fmt: skip


def require(path: pathlib.Path) -> pathlib.Path:
    """`path` itself; ValueError names it where it is missing."""
    if not path.exists():
        raise ValueError(f"the report expected {path}, got no such file")
    return path


def read(path: pathlib.Path) -> Any:
    """Required JSON; ValueError names the file where it is missing or damaged."""
    return atomic.read_json(require(path))


def collect(workdir: pathlib.Path) -> dict[str, Any]:
    """All figures of the run in `workdir`, and of the models it used.

    What the run cannot have is None: the judge's without a judge, the encoder's where embeddings
    were computed elsewhere, those of large images without a region, what no stage measured.
    `date` is the day on which the last stage ended. Raises ValueError for another missing file.
    """
    results = read(workdir / "evaluate" / "results.json")
    config = read(workdir / "config.json")
    models = pathlib.Path(config.get("models") or workdir).expanduser()
    autoencoder = _facts(models, "autoencoder")
    large_images = _facts(workdir, "sample")["large_images"]
    # The page reads them of each image's own file.
    large_images = [_without(image, "window_lines") for image in large_images]
    encoder = _facts(models, "encoder")
    environment = read(workdir / "environment.json")
    # Of several machines, the one that trained what generates.
    trained = _optional(workdir / "denoiser" / "done.json")
    environment = environment | _pick(trained, ("machine",) if "machine" in trained else ())
    judge = results.get("judge")
    stages = _done(workdir)
    return {
        **_pick(results, _FEATURES),
        **{name: results.get(name) for name in _PIXELS},
        "reconstruction_psnr": autoencoder["psnr"],
        "reconstruction_ssim": autoencoder["ssim"],
        "judge": judge and _pick(judge, _FEATURES),
        "embedding_dim": _condition_length(_facts(models, "embeddings")),
        "encoder": None if "imported" in encoder else _encoder(encoder),
        "judge_encoder": judge and _encoder(_facts(models, "judge")),
        **{name: results.get(name) for name in _JUDGED},
        # The page reads the pairs of the stage's own file, with their pictures.
        "memorisation": _without(results.get("memorisation"), "pairs"),
        "agreement": _optional(workdir / "imagine" / "results.json").get("agreement"),
        "stages": {name: _pick(done, ("seconds", "peak_rss_mb")) for name, done in stages.items()},
        "elapsed": _elapsed(stages.values()),
        "setup_seconds": _setup_seconds(pathlib.Path(sys.prefix)),
        "large_image": large_images[0] if large_images else None,
        "large_images": large_images,
        "environment": _pick(environment, ("versions", "machine")),
        "data": _data(workdir, config),
        "seed": config.get("seed"),
        "config_digest": digests.of_values(science(config)),
        # ISO dates sort as text does.
        "date": max((done["finished"] for done in stages.values()), default="")[:10],
    }


def science(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config without what says only which stages to run."""
    return {key: value for key, value in config.items() if key not in _LAUNCH_ONLY}


def _facts(workdir: pathlib.Path, stage: str) -> dict[str, Any]:
    return read(workdir / stage / "done.json")["facts"]


def _condition_length(facts: Mapping[str, Any]) -> int:
    """Numbers that describe a cell: an embedding, or all its tokens."""
    return facts["dim"] * facts.get("tokens_per_side", 1) ** 2


def _encoder(facts: Mapping[str, Any]) -> dict[str, Any]:
    return _pick(facts, _ENCODER) | {name: facts.get(name) for name in _VARIETY}


def _pick(values: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """These of the values; ValueError names the stage's key that an earlier form lacks."""
    missing = [name for name in names if name not in values]
    if missing:
        raise ValueError(
            f"the report expected figures {', '.join(missing)}, got those of an earlier version; "
            "--config.force=STAGE, such as evaluate, computes them again"
        )
    return {name: values[name] for name in names}


def _elapsed(done: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Seconds and memory of all stages, each moment counted once."""
    spans = [elapsed.Span.of(one) for one in done]
    return {"seconds": elapsed.seconds(spans), "peak_rss_mb": elapsed.peak(spans)}


def _without(values: Mapping[str, Any] | None, name: str) -> dict[str, Any] | None:
    return values and {key: value for key, value in values.items() if key != name}


def _optional(path: pathlib.Path) -> dict[str, Any]:
    return atomic.read_json(path) if path.exists() else {}


def _data(workdir: pathlib.Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """Held-out regions as [rows, columns] of cells; pixels of a cell and microns of a pixel, at the
    level of the images."""
    px, mpp = config["data"]["crops"]["patch_px"], config["data"].get("patch_mpp")
    # 0 is the first level, as in runs of before there were levels.
    level = config.get("sample", {}).get("level") or 1
    places = read(workdir / "patches" / "regions.json")
    cells = lambda length: int(length // px / level)
    lattices = [[cells(place["height"]), cells(place["width"])] for place in places]
    return {"lattices": lattices, "patch_px": px, "mpp": mpp and mpp * level}


def _setup_seconds(environment: pathlib.Path) -> float | None:
    """How long `launch/setup.sh` took to install this interpreter's packages, if it did."""
    stamp = environment / ".installed-run"
    said = stamp.read_text().strip() if stamp.exists() else ""
    return float(said) if said else None


def _done(workdir: pathlib.Path) -> dict[str, dict[str, Any]]:
    """`done.json` of every finished stage but the report, in the order they ended."""
    # What is being rebuilt lies in folders that begin with a dot.
    paths = [p for p in workdir.glob("[!.]*/done.json") if p.parent.name not in _NO_STEPS]
    done = {path: atomic.read_json(path) for path in paths}
    # The file's own time parts what ended within one unit of `finished`.
    ended = sorted(done, key=lambda path: (done[path]["finished"], path.stat().st_mtime_ns))
    return {path.parent.name: done[path] for path in ended}
