"""Tool `verify`: read everything again that was stored, and name what is damaged."""

import functools
import pathlib
import time
from typing import Any

from ssldiff_jax.core import machine
from ssldiff_jax.data import ahead, archive, records, store
from ssldiff_jax.formats import atomic
from ssldiff_jax.runs import artifacts
from ssldiff_jax.runs import stage as stage_lib

_READ = 64  # records that a thread reads together
_STORES = ("embeddings", "latents", "grids/train", "grids/test")


class DamageError(stage_lib.FoundError):
    """Stored files that are not as they were written."""


def run(context: stage_lib.Context) -> dict[str, Any]:
    """Compare every shard with its hash, decode every record; writes `results.json`.

    Raises DamageError, after that, naming the shards that are damaged and what rebuilds them.
    """
    began = time.monotonic()
    folder = context.folder("patches") / "records"
    archived = artifacts.archive_folder(context.config.data, context.workdir)
    harmed = _records(folder, archived)
    counts = {}
    for name in _STORES:
        if (context.workdir / name / "manifest.json").exists():
            result = store.Store(context.workdir / name)
            counts[name] = len(result)
            stage = name.partition("/")[0]
            harmed += [(str(path), reason, f"--config.force={stage}")
                       for path, reason in result.damaged()]  # fmt: skip
    for split in atomic.read_json(folder / "manifest.json")["splits"]:
        source = records.RecordSource(folder, split)
        counts[f"records/{split}"] = len(source)
        # A shard whose bytes differ from its hash need not be decoded to be known as damaged.
        if not harmed:
            harmed = _decode_all(source)
    result = {"counts": counts, "damaged": harmed, "seconds": time.monotonic() - began}
    atomic.write_json(context.folder("verify") / "results.json", result)
    if harmed:
        first = "; ".join(f"{path}: {reason} ({cure})" for path, reason, cure in harmed[:3])
        raise DamageError(
            f"{len(harmed)} shards are damaged: {first}", result | {"damaged": len(harmed)}
        )
    return result


def _records(folder: pathlib.Path, archived: pathlib.Path) -> list[tuple[str, str, str]]:
    """Damaged shards of records: the entry has to go before the stage rebuilds it."""
    damaged = []
    for shard, reason in archive.damaged(folder):
        entry = archived / pathlib.PurePath(shard).parent
        cure = f"remove {entry}, then --config.force=patches rebuilds it"
        damaged.append((shard, reason, cure))
    return damaged


def _decode_all(source: records.RecordSource) -> list[tuple[str, str, str]]:
    """The first record that is no image, if there is one."""
    count, cores = len(source), machine.cores()
    parts = (range(i, min(i + _READ, count)) for i in range(0, count, _READ))
    look = functools.partial(_first_damaged, source)
    reasons = ahead.ahead(look, parts, threads=cores, count=2 * cores)
    first = next((reason for reason in reasons if reason), None)
    return [(str(source), first, "--config.force=patches")] if first else []


def _first_damaged(source: records.RecordSource, part: range) -> str | None:
    """Why the first record of a part that is no image cannot be decoded."""
    for number, record in zip(part, source.encoded(part), strict=True):
        try:
            records.decode(records.encoded_image(record))
        except Exception as error:  # Pillow and protobuf each have their own
            reason = " ".join(str(error).split())
            return f"record {number} cannot be decoded: {reason}"
    return None
