"""What changed of the facts of slides, in a few words: a run may have thousands."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

_KEYS = ("inputs.slides", "inputs.table", "inputs.annotations")
_COLUMNS = ("mpp", "case", "label", "split", "reading")  # of a table, as its facts stand
_SHOWN = 3  # slides in a message
_LONGEST = 200  # characters of what is said of one


def are_of_slides(key: str, old: Any, new: Any) -> bool:
    """Whether a difference is one of lists with an item for each slide."""
    are_lists = all(value is None or isinstance(value, list) for value in (old, new))
    return key in _KEYS and are_lists and any((old, new))


def line(
    key: str,
    old: list[Any] | None,
    new: list[Any] | None,
    slides: Sequence[Any],
    slides_now: Sequence[Any],
) -> str:
    """How many slides differ, and the first of them with what was and is said of them. `slides`
    and `slides_now` name them in the order of `old` and `new`, where these have no names."""
    before, after = (
        _by_name(key, facts or [], named) for facts, named in ((old, slides), (new, slides_now))
    )
    names = [n for n in dict.fromkeys((*before, *after)) if before.get(n) != after.get(n)]
    if not names:
        return f"{key}: another order of {len(after)} slides"
    shown = [
        f"{name}: {_changed(key, before.get(name), after.get(name))}" for name in names[:_SHOWN]
    ]
    more = ", …" if len(names) > _SHOWN else ""
    count = len(before.keys() | after.keys())
    return f"{key}: {len(names)} of {count} slides differ: {', '.join(shown)}{more}"


def _by_name(key: str, facts: list[Any], slides: Sequence[Any]) -> Mapping[str, list[Any]]:
    """What is said of slides by their names; of several of one name together."""
    # Of a table alone the names stand elsewhere.
    is_table = key == "inputs.table"
    pairs = zip(slides, facts, strict=False) if is_table else ((f, f[1:]) for f in facts)
    by_name: dict[str, list[Any]] = {}
    for (name, *_), said in pairs:
        by_name.setdefault(str(name), []).append(said)
    return by_name


def _changed(key: str, old: list[Any] | None, new: list[Any] | None) -> str:
    """What was and is said of a slide; of a table only the columns that differ."""
    are_rows = key == "inputs.table" and all(
        facts is not None and len(facts) == 1 and len(facts[0]) == len(_COLUMNS)
        for facts in (old, new)
    )
    if not are_rows:
        return f"{_said(old)} → {_said(new)}"
    cells = zip(_COLUMNS, old[0], new[0], strict=True)
    return " and ".join(f"{column} {_said([a])} → {_said([b])}" for column, a, b in cells if a != b)


def _said(facts: Sequence[Any] | None) -> str:
    if facts is None:
        return "not there"
    # One of a name is the rule.
    text = json.dumps(facts[0] if len(facts) == 1 else facts, ensure_ascii=False)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
