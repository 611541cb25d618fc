"""Captions of measured regions: what there is, how much of it and where, in varied words.

Some wordings are kept for testing: a prior that understands them has learnt more than sentences.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float

Phrasing = Literal["train", "held_out"]

_AMOUNTS: Sequence[tuple[float, dict[Phrasing, tuple[str, ...]]]] = (
    (0.03, {"train": ("no {}", "without {}"), "held_out": ("not any {}",)}),
    (0.15, {"train": ("a little {}", "hardly any {}"), "held_out": ("a bit of {}",)}),
    (0.40, {"train": ("some {}", "{} in part"), "held_out": ("a fair amount of {}",)}),
    (0.75, {"train": ("much {}", "a lot of {}"), "held_out": ("plenty of {}",)}),
    (1.01, {"train": ("almost only {}", "{} nearly all over"), "held_out": ("{} wall to wall",)}),
)
_NOUNS: Mapping[str, dict[Phrasing, tuple[str, ...]]] = {
    "water": {"train": ("water", "lake", "open water"), "held_out": ("ponds",)},
    "vegetation": {"train": ("vegetation", "green fields", "cropland"), "held_out": ("crops",)},
    "bare": {"train": ("bare ground", "soil", "fallow land"), "held_out": ("dry earth",)},
    "nuclei": {"train": ("nuclei", "cells", "dark nuclei"), "held_out": ("cell nuclei",)},
    "stroma": {"train": ("stroma", "pink tissue", "fibres"), "held_out": ("connective tissue",)},
    "empty": {"train": ("empty glass", "background", "gaps"), "held_out": ("blank space",)},
}
_PLACES: Mapping[str, dict[Phrasing, tuple[str, ...]]] = {
    side: {
        "train": (f"in the {side}", f"on the {side}ern side"),
        "held_out": (f"towards the {side}",),
    }
    for side in ("north", "south", "west", "east")
}
# From this difference between two halves on, a place is named.
_LOPSIDED = 0.2


def caption(
    names: Sequence[str],
    parts: Float[np.ndarray, "2 2 K"],
    generator: np.random.Generator,
    phrasing: Phrasing = "train",
) -> str:
    """One sentence on every class, in random order and words, true to the measured parts."""
    order = generator.permutation(len(names))
    said = [_clause(names[k], parts[..., k], generator, phrasing) for k in order]
    return ", ".join(said)


def _clause(name: str, part: np.ndarray, generator: np.random.Generator, phrasing) -> str:
    pick = lambda choices: choices[phrasing][generator.integers(len(choices[phrasing]))]
    noun, whole = pick(_NOUNS[name]), float(part.mean())
    halves = {"north": part[0], "south": part[1], "west": part[:, 0], "east": part[:, 1]}
    means = {side: float(values.mean()) for side, values in halves.items()}
    slopes = {
        "north": means["north"] - means["south"], "south": means["south"] - means["north"],
        "west": means["west"] - means["east"], "east": means["east"] - means["west"],
    }  # fmt: skip
    side = max(slopes, key=slopes.get)
    if slopes[side] < _LOPSIDED:
        return _amount(whole, pick).format(noun)
    return f"{_amount(means[side], pick).format(noun)} {pick(_PLACES[side])}"


def _amount(value: float, pick) -> str:
    return pick(next(words for limit, words in _AMOUNTS if value < limit))
