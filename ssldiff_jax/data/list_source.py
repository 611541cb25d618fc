"""Records from patches that are already cut."""

import dataclasses
import functools
import hashlib
import logging
from collections.abc import Callable

import numpy as np

from ssldiff_jax.core import arrays, schema
from ssldiff_jax.data import ahead, cases, patch_list, plan
from ssldiff_jax.data import config as data_config
from ssldiff_jax.data.precomputed import files

_LOG = logging.getLogger(__name__)

_READ_TOGETHER = 8


def read_source(
    data: data_config.DataConfig,
    patches: patch_list.PatchList,
    embeddings: files.Features | None = None,
) -> plan.Source:
    """Every patch of the list with the size of a record, once; held out by case, or the last ones.

    Raises WeightsError where embeddings are not as many, PatchListError where a split has no
    patch of that size, ConfigError for context where embeddings are of whole patches.
    """
    if embeddings is not None and len(embeddings) != len(patches):
        raise files.WeightsError(
            f"{embeddings} must have a row for each patch of {patches.source}, got "
            f"{len(embeddings)} rows and {len(patches)} patches"
        )
    if embeddings is not None and data.crops.context_px:
        raise schema.ConfigError(
            "config.data.crops.context_px must be 0 where embeddings are of whole patches of a "
            f"list, got {data.crops.context_px}"
        )
    side, used = data.records.record_px, _used(patches, data.records.record_px)
    splits: dict[str, list[plan.Square]] = {"train": [], "test": []}
    held_out = _held_out(data.holdout, patches, used.numbers)
    for number in used.numbers:
        row = number if embeddings is not None else -1
        square = plan.Square(number, 0, 0, side, side, row)
        splits["test" if held_out(number) else "train"].append(square)
    for split, squares in splits.items():
        if not squares:
            skipped = used.skipped
            first = f"; skipped {skipped[0]['slide']}: {skipped[0]['reason']}" if skipped else ""
            raise patch_list.PatchListError(
                f"{patches.source}: no patch for the {split} split, held out by "
                f"{data.holdout.by}, of config.data.records.record_px={side}; {len(skipped)} of "
                f"{len(patches)} were skipped{first}"
            )

    def read(s: plan.Square) -> arrays.Pixels:
        return patches.read(s.slide)[s.top : s.top + s.height, s.left : s.left + s.width]

    return plan.Source(
        read=read,
        splits=splits,
        references=_pages(splits["test"], data),
        names={0: patches.source},
        skipped=used.skipped,
    )


@dataclasses.dataclass(frozen=True)
class _Used:
    """Numbers of the patches that are records, and why others are none."""

    numbers: list[int]
    skipped: list[dict[str, str]]


def _used(patches: patch_list.PatchList, side: int) -> _Used:
    """Every patch of the right size that can be read, and each picture once, in whatever file and
    however turned: copies would stand on both sides of a split."""
    look = functools.partial(_look, patches, side)
    # Not all of the list: a future for each of millions would wait in memory.
    waiting = 8 * _READ_TOGETHER
    looks = list(ahead.ahead(look, range(len(patches)), threads=_READ_TOGETHER, count=waiting))
    left_out = getattr(patches, "left_out", [])
    reason = "expected an image file (.png, .jpg, .tif, .bmp …), got another suffix"
    numbers, first = [], {}
    skipped = [{"slide": name, "reason": reason} for name in left_out]
    for number, outcome in enumerate(looks):
        same = first.setdefault(outcome.digest, number) if outcome.digest else number
        if outcome.reason or same != number:
            reason = outcome.reason or f"the same pixels as {patches.name(same)}, which is used"
            skipped.append({"slide": patches.name(number), "reason": reason})
        else:
            numbers.append(number)
    return _Used(numbers, skipped)


@dataclasses.dataclass(frozen=True)
class _Looked:
    """A hash that a picture shares with its turned and mirrored copies, or why there is none."""

    digest: bytes = b""
    reason: str = ""


def _look(patches: patch_list.PatchList, side: int, number: int) -> _Looked:
    try:
        shape = tuple(patches.shape(number))
        if shape != (side, side):
            return _Looked(reason=f"expected {side} × {side} px, got {shape[0]} × {shape[1]}")
        image = patches.read(number)
    except patch_list.PatchListError as error:
        return _Looked(reason=str(error))
    # All eight orientations of a square have the same eight hashes, so the least is that of each.
    turned = (np.rot90(x, k) for x in (image, image.swapaxes(0, 1)) for k in range(4))
    hashes = (hashlib.blake2b(np.ascontiguousarray(x), digest_size=16).digest() for x in turned)
    return _Looked(min(hashes))


def require_holdout(holdout: plan.HoldoutConfig, patches: patch_list.PatchList) -> None:
    """Raise ConfigError for a part that a list cannot hold out."""
    allowed = ("area",) if isinstance(patches, patch_list.PixelArray) else ("case", "area")
    if holdout.by not in allowed:
        why = "names no cases" if holdout.by == "case" else "is a list, which has no columns"
        raise schema.ConfigError(
            f"{patches.source} {why}: config.data.holdout.by must be "
            f"{' or '.join(map(repr, allowed))}, got {holdout.by!r}"
        )


def _held_out(
    holdout: plan.HoldoutConfig, patches: patch_list.PatchList, numbers: list[int]
) -> Callable[[int], bool]:
    require_holdout(holdout, patches)
    if holdout.by == "area":
        # Of those that are used: copies may all lie at the end.
        count = plan.count_held_out(len(numbers), holdout.fraction)
        last = set(numbers[len(numbers) - count :])
        return last.__contains__
    if len(numbers) < 2:
        return lambda number: False  # why others were skipped is reported
    split = cases.Cases.of([patches.name(i) for i in numbers], holdout)
    _LOG.info("%s", split)
    return lambda number: split.side(patches.name(number)) == "test"


def _pages(squares: list[plan.Square], data: data_config.DataConfig) -> list[plan.Reference]:
    """Held-out patches side by side, as many pages as regions are requested."""
    px, each = data.crops.patch_px, data.regions.rows * data.regions.cols
    # The patch in the middle of its record, which may be larger.
    margin = (data.records.record_px - px) // 2
    # Always the same ones: references do not change with the seed of a run.
    order = np.random.default_rng(0).permutation(len(squares))[: each * data.regions.count]
    cells = [
        dataclasses.replace(squares[i], top=margin, left=margin, height=px, width=px) for i in order
    ]
    pages = [tuple(cells[i : i + each]) for i in range(0, len(cells), each)]
    return [plan.Reference(page, data.regions.cols, "page") for page in pages if len(page) == each]
