"""Which cases names belong to, and which of them are held out."""

import collections
import dataclasses
import functools
import re
from collections.abc import Iterable, Mapping, Sequence

from ssldiff_jax.core import schema
from ssldiff_jax.data import plan
from ssldiff_jax.slides import remote

# A case and a number or letter behind it: patient001_1, P12-A, case_7 (slide 2).
_KINDS = "slide|part|block|section|scan|node|s|b"
_PART = re.compile(
    rf"(?P<case>.+?)[-_ .(]+(?:{_KINDS})?[-_ .]?(?:\d{{1,3}}|[A-Za-z])\)?", re.IGNORECASE
)


def held_out(cases: Iterable[str], fraction: float) -> frozenset[str]:
    """The held-out ones, by hashes of their names, which do not know the others.

    Where that leaves none it is the one of least hash, where it leaves none to train on all but the
    one of greatest: of two cases each side has one. As cases are added none that was trained on is
    held out, but for that last one.
    """
    # By hash: two cases keep their order whatever others are added.
    ordered = sorted(set(cases), key=plan.hash_of)
    count = sum(plan.hash_of(case) < fraction for case in ordered)
    return frozenset(ordered[: min(max(count, 1), len(ordered) - 1)])


@dataclasses.dataclass(frozen=True)
class Listed:
    """What a table says of a slide: its side where the table says one, and its case, which is
    `given` by it or found in the file's name."""

    case: str
    side: plan.Side | None
    given: bool


@dataclasses.dataclass(frozen=True)
class Cases:
    """The cases of slides or patches by their names.

    Attributes:
        names: of files, or of patches in a list with their folders; of slides of a table, paths.
        holdout: how cases are found in names, and how many are held out.
        listed: what a table says, by name.
    """

    names: tuple[str, ...]
    holdout: plan.HoldoutConfig
    listed: Mapping[str, Listed] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(
        cls,
        names: Sequence[str],
        holdout: plan.HoldoutConfig,
        listed: Mapping[str, Listed] | None = None,
    ) -> "Cases":
        """Raises ConfigError where there are not two, and for names that look like parts of one
        case which the pattern does not find."""
        cases = cls(tuple(names), holdout, listed or {})
        cases._require_two()
        cases._require_apart()
        return cases

    @functools.cached_property
    def held_out(self) -> frozenset[str]:
        """The held-out cases: by the table where it says, else by their hashes."""
        if self._has_sides:
            return frozenset(one.case for one in self.listed.values() if one.side == "test")
        return held_out(map(self.of_name, self.names), self.holdout.fraction)

    def of_name(self, name: str) -> str:
        """The case of a name."""
        if name in self.listed:
            return self.listed[name].case
        return plan.case_of(name, self.holdout.case_regex)

    def side(self, name: str) -> plan.Side:
        """The split of a name."""
        if self._has_sides:
            return self.listed[name].side
        return "test" if self.of_name(name) in self.held_out else "train"

    def is_alone_held_out(self, file_name: str) -> bool:
        """Whether the name of a file alone holds it out."""
        case = plan.case_of(file_name, self.holdout.case_regex)
        return plan.is_held_out(case, self.holdout.fraction)

    def moved(self, name: str) -> plan.Side | None:
        """The split of a name where it is another than that of its file's name alone."""
        alone = "test" if self.is_alone_held_out(remote.name_of(name)) else "train"
        side = self.side(name)
        return None if side == alone else side

    @property
    def _has_sides(self) -> bool:
        return any(one.side for one in self.listed.values())

    def __str__(self) -> str:
        count, others = len(set(map(self.of_name, self.names))), len(self._unmatched)
        if self.listed:
            by = "by the table" if self._has_sides else "by hashes of their names"
            return f"{count} cases, {len(self.held_out)} of them held out {by}"
        own = f"; {others} without a match are a case each" if others else ""
        return (
            f"{count} cases, {len(self.held_out)} of them held out; {len(self.names) - others} of "
            f"{len(self.names)} names match data.holdout.case_regex{own}"
        )

    @functools.cached_property
    def _unmatched(self) -> tuple[str, ...]:
        """Files whose names are all that is known of their cases, without a match."""
        names = [
            remote.name_of(name) if name in self.listed else name
            for name in self.names
            if name not in self.listed or not self.listed[name].given
        ]
        return tuple(n for n in names if not plan.match_of(n, self.holdout.case_regex))

    def _require_two(self) -> None:
        cases = set(map(self.of_name, self.names))
        if len(cases) < 2:
            raise schema.ConfigError(
                f"config.data.holdout.by=case must have two cases or more, got {len(cases)} "
                f"({', '.join(cases)}) in {len(self.names)} names; --config.data.holdout.by=area "
                "holds out the last rows of each, and config.data.holdout.case_regex says what in "
                "a name is its case"
            )

    def _require_apart(self) -> None:
        groups = look_alike(self._unmatched)
        if groups:
            case, (first, second, *_) = next(iter(groups.items()))
            # What finds this case and others numbered like it.
            digits = re.sub(r"\d+", r"\\d+", re.escape(case)) if re.search(r"\d", case) else ""
            raise schema.ConfigError(
                "names without a match of config.data.holdout.case_regex="
                f"{self.holdout.case_regex!r} are cases of their own and must not look like parts "
                f"of one, got {first} and {second}, and {len(groups)} such cases; say what is one, "
                f"--config.data.holdout.case_regex='{digits or '^[^-_ .]+'}', or '.+' where each "
                "name is"
            )


def look_alike(names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Cases that several names seem to be numbered parts of.

    What numbers stand behind is a case where it has a number itself (patient001_1), or where there
    are as many of them as there are parts of one; tumor_001 … tumor_110 are counted, and so are
    files of classes.
    """
    groups: dict[str, list[str]] = collections.defaultdict(list)
    for name in names:
        match = _PART.fullmatch(plan.stem_of(name))
        if match:
            groups[match["case"]].append(name)
    several = {case: tuple(parts) for case, parts in groups.items() if len(set(parts)) > 1}
    worded = {case: parts for case, parts in several.items() if not re.search(r"\d", case)}
    most = max(map(len, worded.values()), default=0)
    is_case = len(worded) > 1 and len(worded) >= most
    return several if is_case else {c: parts for c, parts in several.items() if c not in worded}
