"""What a list of patches will give."""

import functools

from ssldiff_jax.core import arrays, estimates
from ssldiff_jax.data import cases, list_source, patch_list, plan, records
from ssldiff_jax.data import config as data_config
from ssldiff_jax.data.census import counts as counts_lib
from ssldiff_jax.data.precomputed import files as features

_LISTED = 4096
"""Patches of a list that are read to count them; of more, all are taken to be usable."""


def of_list(
    data: data_config.DataConfig,
    images: patch_list.PatchList,
    embeddings: features.Features | None,
) -> counts_lib.Census:
    """Of patches, with embeddings that were computed elsewhere or without."""
    if len(images) > _LISTED:
        return _of_long_list(data, images)
    source = list_source.read_source(data, images, embeddings)
    counts = {split: len(squares) for split, squares in source.splits.items()}
    every = [(s, square) for s, squares in source.splits.items() for square in squares]
    chosen = counts_lib.some_of(every, counts_lib.ENCODED)
    size = functools.partial(_size_in_list, data, images)
    sizes = [size(square, source.read(square)) for _, square in chosen]
    by_split = {split: estimates.Estimate(count) for split, count in counts.items()}
    counted = counts_lib.Counted(images.source, counts, tuple(sizes))
    mean = counts_lib.mean_size([counted], is_all=True)
    return counts_lib.Census(
        named=len(images),
        looked_at=len(images),
        unusable=estimates.Estimate(len(source.skipped)),
        records=by_split,
        record_bytes=mean,
        stored=counts_lib.stored_bytes([counted], mean, 1),
        regions=estimates.Estimate(len(source.references)),
        are_pages=True,
        picture=None,
        names={number: images.name(number) for number in range(len(images))},
        reasons={line["slide"]: line["reason"] for line in source.skipped},
    )


def _size_in_list(
    data: data_config.DataConfig,
    images: patch_list.PatchList,
    square: plan.Square,
    pixels: arrays.Pixels,
) -> int:
    name, number = images.name(square.slide), square.slide
    quality = records.quality_of(data.records.jpeg_quality, data.reading.multiband)
    case, encoded = plan.case_of(name, data.holdout.case_regex), records.encode(pixels, quality)
    label = images.label(number)
    record = records.serialize(
        encoded, square, slide=name, case=case, label=label, mpp=data.patch_mpp
    )
    return len(record)


def _of_long_list(data: data_config.DataConfig, images: patch_list.PatchList) -> counts_lib.Census:
    """As if every patch could be used, and none were twice there."""
    list_source.require_holdout(data.holdout, images)
    count, side = len(images), data.records.record_px
    source = f"as if all {count} patches were of {side} px and different"
    if data.holdout.by != "case":
        held_out = plan.count_held_out(count, data.holdout.fraction)
    else:
        split_of = cases.Cases.of([images.name(i) for i in range(count)], data.holdout)
        held_out = sum(split_of.side(name) == "test" for name in split_of.names)
    by_split = {
        "train": estimates.Estimate(count - held_out, source),
        "test": estimates.Estimate(held_out, source),
    }
    sizes = []
    for number in counts_lib.spread_over(range(count), counts_lib.ENCODED):
        square = plan.Square(number, 0, 0, side, side)
        sizes.append(_size_in_list(data, images, square, images.read(number)))
    counted = counts_lib.Counted(
        images.source, {s: int(n.value) for s, n in by_split.items()}, tuple(sizes)
    )
    mean = counts_lib.mean_size([counted], is_all=True)
    each = data.regions.rows * data.regions.cols
    return counts_lib.Census(
        named=count,
        looked_at=len(sizes),
        unusable=estimates.Estimate(0, source),
        records=by_split,
        record_bytes=mean,
        stored=counts_lib.stored_bytes([counted], mean, 1),
        regions=estimates.Estimate(min(data.regions.count, held_out // each), source),
        are_pages=True,
        picture=None,
        names={},
        reasons={},
    )
