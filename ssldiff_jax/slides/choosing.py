"""Which bands of a file are those that a config names, and whether their values fit records."""

import pathlib
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Shaped

from ssldiff_jax.slides import multiband, pixels, warn
from ssldiff_jax.slides.protocol import SlideError


def bands(
    source: pathlib.Path | str,
    names: Sequence[str],
    numbers: Sequence[int],
    labels: Sequence[Sequence[str]],
) -> list[int]:
    """Numbers, from 1, of the bands of a file that have `names`: those that are said; else those
    that its labels, of one kind or another, call so; else the first ones, with a warning.

    `labels` has one for every band, of each kind that a file may have, best first; "" for none.
    Raises SlideError for a file of fewer bands, and for one whose labels contradict their order.
    """
    count = len(labels[0])
    if numbers:
        if max(numbers) > count:
            raise SlideError(
                f"expected config.data.reading.bands in 1…{count} for {source}, got "
                f"{tuple(numbers)}"
            )
        return list(numbers)
    if count < len(names):
        raise SlideError(
            f"expected {_listed(names, 'band')} or more, got {_counted(count)} in {source}"
        )
    kinds = [[_canonical(label) for label in kind] for kind in labels]
    # Of each band the best label that it has.
    together = [next(filter(None, of_band), "") for of_band in zip(*kinds, strict=True)]
    wanted = [_canonical(name) for name in names]
    for called in (*kinds, together):
        if all(called.count(name) == 1 for name in wanted):
            return [called.index(name) + 1 for name in wanted]
    _require_order(source, wanted, kinds)
    warn.once(
        f"{source}: the first {len(names)} of {_counted(count)} are used as {', '.join(names)}: "
        "not all are called so"
    )
    return list(range(1, len(names) + 1))


def require_fits(
    source: pathlib.Path | str,
    dtype: np.dtype | str,
    config: multiband.MultibandConfig,
    look: Callable[[], Shaped[np.ndarray, "*S"]],
) -> None:
    """Raise SlideError for values that need a range to be records, and have none; a warning says so
    of 16 bits that hold 12 or 14, or 8.

    `look` gives some of the values.
    """
    if np.dtype(dtype).kind == "c":
        raise SlideError(f"expected bands of real numbers, got {dtype} in {source}")
    if not config.is_scaled and not np.can_cast(dtype, config.dtype):
        keys = [f"--config.data.reading.multiband.{key}" for key in ("low", "high", "bits")]
        more = f", or {keys[2]}=16" if config.bits == 8 and np.dtype(dtype) == np.uint16 else ""
        raise SlideError(
            f"expected bands of {config.bits} bits, got {dtype} with {span(look())} in {source}: "
            f"pass {keys[0]} and {keys[1]}, the values of each band that become 0 and "
            f"{config.top}{more}"
        )
    if config.bits == 16 and not config.is_scaled:
        values = look()
        if values.any() and not pixels.uses_sixteen_bits(values):
            warn.once(
                f"{source}: {span(values)} of 0…{config.top} are used as they are, of which an "
                "encoder and pictures see the upper 8 bits: --config.data.reading.multiband.low "
                "and high say a range for each band"
            )


def span(values: Shaped[np.ndarray, "*S"]) -> str:
    """The least and the largest of values, in words; without what is no number."""
    values = values[~np.isnan(values)] if values.dtype.kind == "f" else values
    return f"values {values.min():.10g}…{values.max():.10g}" if values.size else "no data"


def _canonical(label: str) -> str:
    name = multiband.canonical(label)
    return "" if name in ("undefined", "gray") else name


def _require_order(
    source: pathlib.Path | str, wanted: Sequence[str], kinds: Sequence[Sequence[str]]
) -> None:
    """Raise SlideError where some are called by the names, and one of the first is called
    otherwise: B05 where B8 is wanted. A colour alone says nothing: GDAL marks any three bands of
    bytes so, and any fourth as alpha."""
    for called in kinds:
        is_told = bool(set(wanted) & set(called))
        wrong = [
            f"{number} is {label}"
            for number, (label, name) in enumerate(zip(called, wanted, strict=False), 1)
            if is_told and label not in ("", "alpha", name)
        ]
        if wrong:
            raise SlideError(
                f"expected bands called {', '.join(wanted)} in {source}, got {', '.join(wrong)}: "
                "pass --config.data.reading.bands=(<a number for each>)"
            )


def _listed(names: Sequence[str], what: str) -> str:
    return f"{len(names)} {what}{'s' * (len(names) != 1)} ({', '.join(names)})"


def _counted(count: int) -> str:
    return f"{count} band{'s' * (count != 1)}"
