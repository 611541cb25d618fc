"""Where the windows of the sampler's last step begin and end, as lines over an image."""

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Lines:
    """Pixels of horizontal (`rows`) and vertical (`cols`) lines, and what they are."""

    rows: tuple[int, ...]
    cols: tuple[int, ...]
    title: str


def window_lines(image: Mapping[str, Any]) -> Lines | None:
    """Borders of windows by what stage `sample` wrote of an image; None where it wrote none.

    Only the last step's are shown: it alone ends in pixels, and a grid that moves is elsewhere at
    every other.
    """
    lines_of_steps = image.get("window_lines")
    if not lines_of_steps:
        return None
    title = "Borders of the sampling windows at the last solver step"
    return Lines(tuple(lines_of_steps[0]["rows"]), tuple(lines_of_steps[0]["cols"]), title)
