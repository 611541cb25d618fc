"""Held-out regions, or pages of held-out patches, and what was generated from their embeddings."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ssldiff_jax.formats import atomic
from ssldiff_jax.report import metrics as metrics_lib
from ssldiff_jax.report import pictures, seams, training, units, viewer
from ssldiff_jax.slides import slide


def of_run(
    workdir: pathlib.Path, folder: pathlib.Path, metrics: Mapping[str, Any]
) -> list[viewer.Region]:
    """Every reference with its generated image; their pictures are written into `folder`.

    ValueError names a missing file; maps of similarity and lines of windows may be missing.
    """
    places = metrics_lib.read(workdir / "patches" / "regions.json")
    table = training.slides(workdir)
    # Embeddings computed elsewhere leave no encoder to look at pixels with.
    encoder_name = "encoder" if metrics["encoder"] else "judge"
    pairs = []
    for i, place in enumerate(places):
        native = table.get(place["slide"], {}).get("mpp") if place["kind"] == "region" else None
        origin = _origin(place, float(native or 0), metrics["data"]["mpp"])
        pairs.append(_region(workdir, folder, i, place, metrics["data"], encoder_name, origin))
    return pairs


def lead(regions: Sequence[viewer.Region], config: Mapping[str, Any], metrics: Mapping) -> str:
    """What is to be seen on the page, in a sentence or two."""
    first, count = regions[0], len(regions)
    rows, cols = first.lattice
    numbers = (
        f"An embedding is {metrics['embedding_dim']:,} numbers for a square of "
        f"{units.size(first.cell_px, first.cell_px, first.mpp)}."
    )
    if not metrics["large_image"]:
        return (
            f"{count * rows * cols:,} held-out patches, and one generated from the embedding of "
            f"each and nothing else. {numbers}"
        )
    source = f"embeddings of its {rows * cols:,} cells"
    if config.get("sample", {}).get("conditioning") == "dense":
        source = "embeddings of the region at the place of every sampling window"
    size = units.size(first.synthetic.height, first.synthetic.width, first.mpp)
    whose = "A held-out region" if count == 1 else f"{count} held-out regions"
    each = "an image" if count == 1 else "for each an image"
    return f"{whose}, and {each} of {size}, generated from {source} and nothing else. {numbers}"


def _origin(place: Mapping[str, Any], native: float, mpp: float | None) -> viewer.Origin | None:
    """Where a region lies in its slide; None of a page, and where no scale is known."""
    if not (native and mpp):
        return None
    return viewer.Origin(place["top"], place["left"], slide.native_pixels(native, mpp))


def _region(
    workdir: pathlib.Path,
    folder: pathlib.Path,
    i: int,
    place: Mapping[str, Any],
    data: Mapping[str, Any],
    encoder_name: str,
    origin: viewer.Origin | None,
) -> viewer.Region:
    page = place["kind"] == "page"
    generated = workdir / "sample" / f"{'patches' if page else 'image'}_{i}.png"
    reference = workdir / "patches" / f"region_{i}.png"
    similarity = workdir / "evaluate" / f"similarity_{i}.npy"
    image = workdir / "sample" / f"image_{i}.json"
    return viewer.Region(
        title=_title(i, place, data["mpp"], origin),
        reference=pictures.zoomable(reference, folder / f"reference_{i}.png"),
        synthetic=pictures.zoomable(generated, folder / f"synthetic_{i}.png"),
        cell_px=data["patch_px"],
        similarity=np.load(similarity).astype(float) if similarity.exists() else None,
        encoder_name=encoder_name,
        # Pages were generated patch by patch, in no windows.
        windows=None if page or not image.exists() else seams.window_lines(atomic.read_json(image)),
        mpp=data["mpp"],
        origin=origin,
    )


def _title(
    i: int, place: Mapping[str, Any], mpp: float | None, origin: viewer.Origin | None
) -> str:
    name, size = place["slide_name"], units.size(place["height"], place["width"], mpp)
    resolution = units.resolution(mpp)
    size += f", {resolution}" if resolution else ""
    if origin:
        x, y = (int(px * origin.native_px) for px in (origin.left, origin.top))
        size += f"; its top left corner is at x {x:,}, y {y:,} px of the slide at full resolution"
    if place["kind"] == "page":
        return (
            f"Page {i + 1}: held-out patches of {name} side by side, each generated alone; {size}"
        )
    return f"Region {i + 1}: {name}; {size}"
