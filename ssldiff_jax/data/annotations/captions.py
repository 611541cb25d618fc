"""Captions of measured regions: what there is, how much of it and where, in varied words.

Some wordings are kept for testing: a prior that understands them has learnt more than sentences.
"""

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float

Phrasing = Literal["train", "held_out"]
Words = Mapping[Phrasing, tuple[str, ...]]
"""Wordings of one thing, by what they are for."""

# Many words for one thing: with few of them a prior learns sentences by heart.
_AMOUNTS: Sequence[tuple[float, Words]] = (
    (0.03, {
        "train": (
            "no {}", "without {}", "{} missing", "not any {}", "zero {}", "{} absent",
            "devoid of {}", "no {} at all", "free of {}", "an absence of {}", "{} nowhere",
            "never {}", "nothing of {}", "void of {}",
        ),
        "held_out": ("lacking {}",),
    }),
    (0.15, {
        "train": (
            "a little {}", "hardly any {}", "a trace of {}", "a small amount of {}",
            "barely any {}", "very little {}", "scarce {}", "a small patch of {}", "sparse {}",
            "only a little {}", "a few spots of {}", "a tiny amount of {}", "little {}",
            "a touch of {}", "slight {}", "minimal {}", "rare {}", "a low amount of {}",
        ),
        "held_out": ("a bit of {}",),
    }),
    (0.40, {
        "train": (
            "some {}", "{} in part", "a moderate amount of {}", "partly {}", "about a quarter {}",
            "patches of {}", "a medium amount of {}", "a good deal of {}", "a fair share of {}",
            "a reasonable amount of {}", "{} here and there", "a certain amount of {}",
            "moderate {}", "an average amount of {}", "a modest amount of {}",
            "several areas of {}", "an intermediate amount of {}",
        ),
        "held_out": ("a fair amount of {}",),
    }),
    (0.75, {
        "train": (
            "much {}", "a lot of {}", "mostly {}", "large areas of {}", "lots of {}",
            "abundant {}", "dominated by {}", "more than half {}", "a great amount of {}",
            "ample {}", "mainly {}", "rich in {}", "a large amount of {}", "considerable {}",
            "extensive {}", "copious {}", "a high amount of {}", "widespread {}",
            "predominantly {}", "substantial {}",
        ),
        "held_out": ("plenty of {}",),
    }),
    # Above 1, which a part reaches where nothing else is seen.
    (1.01, {
        "train": (
            "almost only {}", "{} nearly all over", "{} everywhere", "entirely {}",
            "nothing but {}", "covered with {}", "full of {}", "completely {}", "{} all through",
            "wholly {}", "filled with {}", "{} all over", "only {}", "solid {}", "{} in every part",
            "exclusively {}", "{} from end to end", "all of it {}",
        ),
        "held_out": ("{} throughout",),
    }),
)  # fmt: skip
"""Below each part of an area, the words for it."""
_NOUNS: Mapping[str, Words] = {
    "water": {
        "train": ("water", "lake", "open water", "ponds", "lake water"),
        "held_out": ("lakes",),
    },
    "vegetation": {
        "train": ("vegetation", "green fields", "cropland", "plants", "grass"),
        "held_out": ("crops",),
    },
    "bare": {
        "train": ("bare ground", "soil", "fallow land", "dry land", "brown earth"),
        "held_out": ("dry earth",),
    },
    "nuclei": {
        "train": (
            "nuclei", "cells", "dark nuclei", "purple cells",
            "blue nuclei", "cellular tissue", "crowded cells", "purple dots",
        ),
        "held_out": ("cell nuclei",),
    },
    "stroma": {
        "train": (
            "stroma", "pink tissue", "fibres", "collagen",
            "fibrous tissue", "pink fibres", "supporting tissue", "pink matrix",
        ),
        "held_out": ("connective tissue",),
    },
    "empty": {
        "train": (
            "empty glass", "background", "gaps", "white space",
            "glass", "empty space", "white background", "holes",
        ),
        "held_out": ("blank space",),
    },
    "ocean": {
        "train": (
            "ocean", "deep sea", "open ocean", "deep water",
            "dark blue sea", "marine waters", "deep blue",
        ),
        "held_out": ("the high seas",),
    },
    "shallows": {
        "train": (
            "shallows", "coastal water", "shallow sea", "light blue water",
            "coast", "shelf sea", "bays", "turquoise water", "shallow water", "inshore sea",
        ),
        "held_out": ("shallow coastal sea",),
    },
    "ice": {
        "train": (
            "ice", "snow", "glaciers", "ice sheets",
            "frozen land", "polar ice", "ice caps", "snowy ground",
        ),
        "held_out": ("snow fields",),
    },
    "desert": {
        "train": (
            "desert", "sand", "dunes", "arid land",
            "dry sandy land", "bare rock", "parched soil", "steppe", "dry wasteland", "badlands",
        ),
        "held_out": ("barren drylands",),
    },
    "forest": {
        "train": (
            "forest", "trees", "jungle", "green land",
            "woods", "rainforest", "taiga", "wooded hills",
        ),
        "held_out": ("woodland",),
    },
}  # fmt: skip
_PLACES: Mapping[str, Words] = {
    side: {
        "train": (
            f"in the {side}", f"on the {side}ern side", f"to the {side}", f"in the {side}ern half",
        ),
        "held_out": (f"towards the {side}",),
    }
    for side in ("north", "south", "west", "east")
}  # fmt: skip


@functools.cache
def words() -> frozenset[str]:
    """The words of captions for training, in small letters."""
    every = [*(words for _, words in _AMOUNTS), *_NOUNS.values(), *_PLACES.values()]
    phrases = [phrase for words in every for phrase in words["train"]]
    return frozenset(re.findall(r"[a-z]+", " ".join(phrases).lower()))


def caption(
    names: Sequence[str],
    parts: Float[np.ndarray, "2 2 K"],
    generator: np.random.Generator,
    phrasing: Phrasing = "train",
    *,
    lopsided: float,
) -> str:
    """One sentence on every class, in random order and words, true to the measured parts. Where two
    halves differ by `lopsided` or more, the fuller one is named."""
    order = generator.permutation(len(names))
    clauses = [_clause(names[k], parts[..., k], generator, phrasing, lopsided) for k in order]
    return ", ".join(clauses)


def _clause(
    name: str,
    part: Float[np.ndarray, "2 2"],
    generator: np.random.Generator,
    phrasing: Phrasing,
    lopsided: float,
) -> str:
    def pick(choices: Words) -> str:
        return choices[phrasing][generator.integers(len(choices[phrasing]))]

    # What a user calls a class has one word: its name, into which nothing is filled.
    own: Words = {"train": (name,), "held_out": (name,)}
    noun, whole = pick(_NOUNS.get(name, own)), float(part.mean())
    halves = {"north": part[0], "south": part[1], "west": part[:, 0], "east": part[:, 1]}
    means = {side: float(values.mean()) for side, values in halves.items()}
    slopes = {
        "north": means["north"] - means["south"], "south": means["south"] - means["north"],
        "west": means["west"] - means["east"], "east": means["east"] - means["west"],
    }  # fmt: skip
    side = max(slopes, key=slopes.get)
    if slopes[side] < lopsided:
        return _amount(whole, pick).format(noun)
    return f"{_amount(means[side], pick).format(noun)} {pick(_PLACES[side])}"


def _amount(value: float, pick: Callable[[Words], str]) -> str:
    return pick(next(words for limit, words in _AMOUNTS if value < limit))
