"""What one slide will give: its squares, and how large some of them are."""

from typing import Any

from ssldiff_jax.core import arrays
from ssldiff_jax.data import archive, plan, records, tiling
from ssldiff_jax.data.census import counts as counts_lib
from ssldiff_jax.slides import content, marked, shown
from ssldiff_jax.slides import slide as slide_lib

_PICTURE_PX = 2048  # the most that is read of a region


def count(task: tiling.Task, sampled: int) -> counts_lib.Counted:
    """What a slide will give, and `sampled` of its records compressed."""
    outcome = task.outcome()
    if isinstance(outcome, archive.Entry):
        return _of_entry(task, outcome)
    if isinstance(outcome, str):
        return counts_lib.Counted(task.name, reason=outcome)
    try:
        slide = task.open()
    except Exception as error:  # whatever a file trips over costs that file
        return counts_lib.Counted(task.name, reason=_line(error))
    try:
        return _look(task, slide, sampled)
    except Exception as error:
        return counts_lib.Counted(task.name, reason=_line(error))
    finally:
        slide.close()


def _look(task: tiling.Task, slide: slide_lib.Slide, sampled: int) -> counts_lib.Counted:
    config = task.config
    parts = plan.parts(slide, config.holdout, config.patch_mpp, task.about.side)
    cells = task.find_cells(slide, parts) if task.find_cells else None
    examined = marked.examine(slide, config.tissue, task.marks)
    cells = tiling.of_marks(cells, examined.allowed, config)
    every = [
        (split, mpp, square)
        for split, mpp, squares in tiling.squares(slide, parts, examined.mask, cells, config)
        for square in squares
    ]
    counts = dict.fromkeys(parts, 0)
    for split, *_ in every:
        counts[split] = counts.get(split, 0) + 1
    regions = tiling.candidates(slide, parts, examined.mask, cells, config)
    marks = [tiling.look(slide, examined)] if every else []
    if slide.path.exists():
        marks.append(content.digest(slide.path) + str(content.size(slide.path)))
    return counts_lib.Counted(
        task.name,
        counts,
        tuple(_sizes(task, slide, counts_lib.some_of(every, sampled))),
        tuple(marks),
        len(regions),
        _picture(slide, regions, config),
    )


def _sizes(task: tiling.Task, slide: slide_lib.Slide, chosen: list[Any]) -> list[int]:
    """Bytes of records as they would be written."""
    about = {"slide": task.name, "case": task.case, "label": task.about.label}
    quality = records.quality_of(task.config.records.jpeg_quality, slide.multiband)
    sizes = []
    for _, mpp, s in chosen:
        pixels = slide.read_region(s.top, s.left, s.height, s.width, mpp=mpp)
        encoded = records.encode(pixels, quality)
        sizes.append(len(records.serialize(encoded, s, **about, mpp=mpp)))
    return sizes


def _picture(
    slide: slide_lib.Slide, regions: list[dict[str, Any]], config: tiling.TilingConfig
) -> arrays.ImageUint8 | None:
    if not regions:
        return None
    top, left, _ = regions[0]["cells"][0]
    height, width = (min(size, _PICTURE_PX) for size in config.region_px)
    return shown.read(slide, top, left, height, width, mpp=config.patch_mpp)


def _of_entry(task: tiling.Task, entry: archive.Entry) -> counts_lib.Counted:
    """Of a slide that was tiled before."""
    marks = [entry.facts["identity"], *([entry.facts["look"]] if entry.count else [])]
    stored = sum(shard.bytes for parts in entry.shards.values() for shard in parts)
    counts = {split: sum(s.count for s in parts) for split, parts in entry.shards.items()}
    # The files hold little else than records.
    sizes = (stored // entry.count,) * entry.count if entry.count else ()
    return counts_lib.Counted(
        task.name, counts, sizes, tuple(marks), len(entry.facts["regions"]), None,
        "", stored,
    )  # fmt: skip


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
