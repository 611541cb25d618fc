"""What a run took as a whole, of stages that may have run at the same time."""

import dataclasses
import datetime
from collections.abc import Iterable, Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Span:
    """From when to when a stage ran (seconds), and the memory that it held at its peak."""

    begin: float
    end: float
    peak: float

    @classmethod
    def of(cls, done: Mapping[str, Any]) -> "Span":
        """That of a `done.json`. A stage that was interrupted counts as if it had begun so much
        later: its seconds are those in which it worked."""
        end = datetime.datetime.fromisoformat(done["finished"]).timestamp()
        return cls(end - done["seconds"], end, done["peak_rss_mb"])


def seconds(spans: Iterable[Span]) -> float:
    """In how many seconds any stage ran."""
    total, until = 0.0, float("-inf")
    for span in sorted(spans, key=lambda span: span.begin):
        total += max(span.end - max(span.begin, until), 0.0)
        until = max(until, span.end)
    return total


def peak(spans: Iterable[Span]) -> float:
    """The most that stages that ran at the same time held together, if all were at their peak."""
    # What ends at a moment does so before what begins then.
    changes = sorted((time, sign * span.peak) for span in spans
                     for time, sign in ((span.begin, 1), (span.end, -1)))  # fmt: skip
    held = most = 0.0
    for _, change in changes:
        held += change
        most = max(most, held)
    return most
