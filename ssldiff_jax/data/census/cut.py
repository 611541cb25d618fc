"""What was cut already, read back: nothing is estimated."""

import pathlib

import numpy as np

from ssldiff_jax.core import estimates
from ssldiff_jax.data.census import counts as counts_lib
from ssldiff_jax.formats import atomic
from ssldiff_jax.slides import pyramid

_PICTURE_PX = 2048


def of_stage(folder: pathlib.Path) -> counts_lib.Census:
    """Of the finished stage `patches` in a folder."""
    facts = atomic.read_json(folder / "done.json")["facts"]
    splits = atomic.read_json(folder / "records" / "manifest.json")["splits"]
    regions = atomic.read_json(folder / "regions.json")
    counts = {name: split["count"] for name, split in splits.items()}
    stored = sum(shard["bytes"] for split in splits.values() for shard in split["shards"])
    number, unusable = sum(counts.values()), facts.get("quarantined", 0)
    picture = None
    if (folder / "region_0.png").exists():
        whole = pyramid.read_image(folder / "region_0.png")
        picture = np.ascontiguousarray(whole[:_PICTURE_PX, :_PICTURE_PX])
    return counts_lib.Census(
        named=len(facts["slides"]) + unusable,
        looked_at=len(facts["slides"]) + unusable,
        unusable=estimates.Estimate(unusable),
        records={name: estimates.Estimate(count) for name, count in counts.items()},
        record_bytes=estimates.Estimate(stored / max(number, 1), "files of the records"),
        stored=estimates.Estimate(stored),
        regions=estimates.Estimate(len(regions)),
        are_pages=all(region["kind"] == "page" for region in regions),
        picture=picture,
        names={int(n): name for n, name in facts["slides"].items()},
        reasons={},
    )
