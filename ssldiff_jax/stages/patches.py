"""Stage `patches`: slides → records of both splits, and the held-out reference regions."""

import dataclasses
import logging
import pathlib
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from ssldiff_jax.core import config as config_lib
from ssldiff_jax.core import files
from ssldiff_jax.data import builder, demo_slide, plan
from ssldiff_jax.slides import pyramid, tissue
from ssldiff_jax.slides import slide as slide_lib
from ssldiff_jax.stages import config as run_config
from ssldiff_jax.stages import runner

_LOG = logging.getLogger(__name__)

_OVERVIEW_MPP = 4.0


def paths(data: run_config.DataConfig) -> list[pathlib.Path]:
    """The slides a config names.

    Raises SlideError when there is none.
    """
    if data.slides == "demo":
        return [demo_slide.demo_slide()]
    return slide_lib.find_slides(data.slides)


def fingerprint(config: run_config.RunConfig) -> list[list[Any]]:
    """Name and size of every slide."""
    return [[path.name, path.stat().st_size] for path in paths(config.data)]


@dataclasses.dataclass(frozen=True)
class _Prepared:
    slide: slide_lib.Slide
    mask: tissue.TissueMask
    parts: dict[str, tuple[int, int]]
    width: int


def run(context: runner.Context) -> dict[str, Any]:
    """Write `records/` (TFDS), `region_N.png` with `regions.json`, and `skipped.json`."""
    data, folder = context.config.data, context.folder("patches")
    prepared, skipped = _prepare(data)
    files.write_json(folder / "skipped.json", skipped)

    splits: dict[str, list[plan.Square]] = {"train": [], "test": []}
    candidates: list[tuple[float, plan.Square]] = []
    for number, p in prepared.items():
        for split, rows in p.parts.items():
            args = (number, rows, p.width, p.mask)
            splits[split] += plan.squares(*args, data.records, data.patch_mpp)
            if split == "test":
                candidates += plan.regions(*args, _region_px(data), data.patch_mpp)
    _check_splits(splits, data)
    candidates.sort(key=lambda item: -item[0])
    regions = plan.pick_apart(candidates, data.regions.count)
    if len(regions) < data.regions.count:
        raise config_lib.ConfigError(
            f"config.data.regions wants {data.regions.count} held-out regions of "
            f"{_region_px(data)} px that do not overlap, got {len(regions)}"
        )

    slides = {number: p.slide for number, p in prepared.items()}
    counts = builder.write_records(
        folder / "records",
        builder.RecordPlan(slides, splits, data.patch_mpp, data.records.jpeg_quality),
    )
    for i, square in enumerate(regions):
        pyramid.write_png(folder / f"region_{i}.png", _read(slides, square, data.patch_mpp))
    names = {number: slide.path.name for number, slide in slides.items()}
    files.write_json(
        folder / "regions.json",
        [dataclasses.asdict(s) | {"slide_name": names[s.slide]} for s in regions],
    )
    for number, p in prepared.items():
        here = [s for s in regions if s.slide == number]
        pyramid.write_png(folder / f"overview_{number}.png", _overview(p, here, data))
        p.slide.close()
    return {"slides": names, "skipped": skipped, "records": counts, "regions": len(regions)}


def _prepare(data: run_config.DataConfig) -> tuple[dict[int, _Prepared], list[dict[str, str]]]:
    prepared, skipped = {}, []
    for number, path in enumerate(paths(data)):
        try:
            slide = slide_lib.open_slide(path, mpp=data.mpp or None)
            mask = tissue.tissue_mask(slide, data.tissue)
            parts = plan.parts(slide, data.holdout, data.patch_mpp)
            prepared[number] = _Prepared(slide, mask, parts, slide.shape_at(data.patch_mpp)[1])
        except slide_lib.SlideError as error:
            _LOG.warning("skipped: %s", error)
            skipped.append({"slide": str(path), "reason": str(error)})
    if not prepared:
        raise slide_lib.SlideError(f"no slide could be used; the first: {skipped[0]['reason']}")
    return prepared, skipped


def _check_splits(splits: dict[str, list[plan.Square]], data: run_config.DataConfig) -> None:
    for name, squares in splits.items():
        if not squares:
            raise slide_lib.SlideError(
                f"no tissue for the {name} split in {data.slides!r}: expected squares of "
                f"{data.records.record_px} px at {data.patch_mpp} mpp with tissue ≥ "
                f"{data.records.min_tissue}, held out by {data.holdout.by}; got none"
            )


def _region_px(data: run_config.DataConfig) -> tuple[int, int]:
    px = data.crops.patch_px
    return data.regions.rows * px, data.regions.cols * px


def _read(slides: dict, square: plan.Square, mpp: float) -> np.ndarray:
    slide = slides[square.slide]
    return slide.read_region(square.top, square.left, square.height, square.width, mpp=mpp)


def _overview(p: _Prepared, regions: list[plan.Square], data: run_config.DataConfig) -> np.ndarray:
    """The slide, small: what is no tissue pale, the held-out part and its regions outlined."""
    mpp = max(_OVERVIEW_MPP, p.slide.mpp)
    height, width = p.slide.shape_at(mpp)
    pixels = p.slide.read_region(0, 0, height, width, mpp=mpp).astype(np.float32)
    mask = Image.fromarray(p.mask.mask).resize((width, height), Image.Resampling.NEAREST)
    pale = 0.25 * pixels + 0.75 * 245
    image = Image.fromarray(np.where(np.asarray(mask)[..., None], pixels, pale).astype(np.uint8))
    draw, scale = ImageDraw.Draw(image), data.patch_mpp / mpp
    if "test" in p.parts:
        top, bottom = (row * scale for row in p.parts["test"])
        draw.rectangle((1, top, width - 2, bottom - 2), outline=(20, 90, 200), width=2)
    for s in regions:
        box = (s.left, s.top, s.left + s.width, s.top + s.height)
        draw.rectangle([value * scale for value in box], outline=(200, 30, 30), width=2)
    return np.asarray(image)
