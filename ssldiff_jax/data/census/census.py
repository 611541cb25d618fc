"""Counts what a config names."""

import collections
import dataclasses
import pathlib

from ssldiff_jax.core import estimates
from ssldiff_jax.data import cases, named_slides, patch_list, plan, slide_source, tiling
from ssldiff_jax.data import config as data_config
from ssldiff_jax.data.census import counts as counts_lib
from ssldiff_jax.data.census import listed, one_slide
from ssldiff_jax.data.precomputed import cells as imported_cells
from ssldiff_jax.data.precomputed import source as imported
from ssldiff_jax.slides import remote


def of_config(
    data: data_config.DataConfig,
    section: imported.EmbeddingsSection,
    folder: pathlib.Path,
    num_slides: int,
    largest_patch: int,
) -> counts_lib.Census:
    """Of what a config names; `section` says where embeddings come from, `folder` is the archive.

    Slides that were tiled before are counted as they are. Raises what the stage `patches` raises
    for a list or slides that cannot be found.
    """
    is_list = patch_list.is_list(data.slides)
    images = patch_list.open_list(data.slides, data.reading) if is_list else None
    if images is not None and getattr(images, "largest_side", 0) <= largest_patch:
        return listed.of_list(data, images, section.of_list() if section.source else None)
    known = imported_cells.ImportedCells(section, data) if section.source else None
    if images is not None:
        tasks = slide_source.tasks(data, folder, images, known)
        chosen = counts_lib.spread_over(tasks, num_slides)
        split = slide_source.cases_of(data, images)
        return _of_slides(data, [t.name for t in tasks], chosen, split)
    sources = named_slides.sources(data)
    only = counts_lib.spread_over(sources, num_slides)
    tasks = slide_source.tasks(data, folder, None, known, only=only)
    names = list(map(remote.name_of, sources))
    return _of_slides(data, names, tasks, slide_source.cases_of(data))


def _of_slides(
    data: data_config.DataConfig,
    names: list[str],
    tasks: list[tiling.Task],
    split: cases.Cases | None,
) -> counts_lib.Census:
    each = -(-counts_lib.ENCODED // len(tasks))
    counted, seen = [], set()
    for task in tasks:
        one = one_slide.count(task, each)
        if one.marks and seen & set(one.marks):
            one = dataclasses.replace(one, reason="the same pixels as an earlier one")
        seen |= set(one.marks)
        counted.append(one)
    used = [one for one in counted if not one.reason]
    source = f"the tissue of {len(tasks)} of {len(names)} slides"
    counted_records = [one if not one.reason else _NOTHING for one in counted]
    by_split = _splits(data, split, len(names), counted_records, source)
    is_all = len(tasks) == len(names)
    mean = counts_lib.mean_size(used, is_all=is_all)
    return counts_lib.Census(
        named=len(names),
        looked_at=len(tasks),
        unusable=estimates.of_share(len(counted) - len(used), len(counted), len(names), source),
        records=by_split,
        record_bytes=mean,
        stored=counts_lib.stored_bytes(counted, mean, len(names)),
        regions=_regions(used, data.regions.count, source if not is_all else ""),
        are_pages=False,
        picture=next((one.picture for one in used if one.picture is not None), None),
        names=dict(enumerate(names)),
        reasons={one.name: one.reason for one in counted if one.reason},
    )


def _regions(used: list[counts_lib.Counted], wanted: int, source: str) -> estimates.Estimate:
    """Regions that images are generated from; slides that were not looked at, which `source` says,
    may have those that are missing."""
    regions = sum(one.regions for one in used)
    if not source or regions >= wanted:
        return estimates.Estimate(min(regions, wanted))
    return estimates.Estimate(wanted, source, regions, wanted)


_NOTHING = counts_lib.Counted("")


def _splits(
    data: data_config.DataConfig,
    split: cases.Cases | None,
    count: int,
    counted: list[counts_lib.Counted],
    source: str,
) -> dict[str, estimates.Estimate]:
    """Records of each split of `count` slides. Where cases are held out, which slides these are is
    known of all; each then gives as many records as those that were looked at do."""
    split_names = dict.fromkeys(s for one in counted for s in one.counts)
    if len(counted) == count or split is None:
        wanted = dict.fromkeys(["train", "test", *split_names])
        return {
            name: estimates.of_mean([one.counts.get(name, 0) for one in counted], count, source)
            for name in wanted
        }
    slides_of = collections.Counter(map(split.side, split.names))
    sides = ["train", "test", *(["validation"] if slides_of["validation"] else [])]
    by_split = {}
    for scale in dict.fromkeys((1.0, *data.records.scales)):
        names = [plan.split_at(side, scale) for side in sides]
        each = [sum(one.counts.get(name, 0) for name in names) for one in counted]
        # As many as are looked at are never all of them: sides have other slides.
        of_all = estimates.of_mean(each, max(count, len(each) + 1), source)
        for side, name in zip(sides, names, strict=True):
            by_split[name] = of_all * (slides_of[side] / count)
    return by_split
