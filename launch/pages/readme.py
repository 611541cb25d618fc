"""Blocks of the pages that are made from results of a run, and never written by hand.

`python -m launch.pages.readme demo runs/demo`, in the root of the repository,
renews one of them.
"""

import dataclasses
import functools
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from PIL import Image

from launch.pages import archive_table, evaluation_table, study_table, sweep_table, unseen_table
from ssldiff_jax.formats import atomic
from ssldiff_jax.report import figures


@dataclasses.dataclass(frozen=True)
class Block:
    """Text between `<!-- name -->` and `<!-- /name -->` of one page.

    Attributes:
        page: the file that shows it, from the root of the repository.
        collect: what `.assets/NAME.json` holds of a work directory; None where it has not that.
        markdown: the text of it.
        picture: what `.assets/NAME.jpg` shows of a work directory; None where it has no picture.
    """

    page: str
    collect: Callable[[pathlib.Path], Mapping[str, Any] | None]
    markdown: Callable[[Mapping[str, Any]], str]
    picture: Callable[[pathlib.Path], Image.Image] | None = None


_QUALITY = 90
_CONFIGS = "configs/README.md"
_DATA = "ssldiff_jax/data/README.md"
_SAMPLER = "ssldiff_jax/sampler/README.md"
_EVALUATION = "ssldiff_jax/evaluation/README.md"
_STUDIES = "ssldiff_jax/evaluation/downstream/README.md"

BLOCKS = {
    "demo": Block(_CONFIGS, figures.of_run, figures.markdown),
    "archive": Block(_DATA, archive_table.collect, archive_table.markdown),
    "evaluation": Block(_EVALUATION, evaluation_table.collect, evaluation_table.markdown),
    "unseen": Block(_EVALUATION, unseen_table.collect, unseen_table.markdown),
    **{
        name: Block(_SAMPLER, sweep_table.collect, sweep_table.markdown, sweep_table.picture)
        for name in ("sweep_demo", "sweep_naip")
    },
    **{
        f"study_{labels}": Block(
            _STUDIES,
            functools.partial(study_table.collect, labels=labels),
            study_table.markdown,
        )
        for labels in ("clusters", "stain", "landcover")
    },
}


def marks(name: str) -> tuple[str, str]:
    """Where a block begins and ends."""
    return f"<!-- {name} -->\n", f"<!-- /{name} -->\n"


def put(text: str, name: str, block: str) -> str:
    """`text` with `block` between its marks; ValueError where it has not one pair of them."""
    begin, end = marks(name)
    counts = text.count(begin), text.count(end)
    if counts != (1, 1) or text.index(begin) > text.index(end):
        raise ValueError(
            f"expected {begin.strip()} and then {end.strip()} once each, got {counts} of them"
        )
    before, after = text.partition(begin)[0], text.partition(end)[2]
    return f"{before}{begin}{block}{end}{after}"


def main(arguments: Sequence[str]) -> None:
    """Write what a run has for a block into `.assets` and the block's page; both stay as they are
    on an error."""
    if len(arguments) != 2 or arguments[0] not in BLOCKS:
        raise SystemExit(
            f"error: expected one of {', '.join(BLOCKS)} and a work directory, got "
            f"{' '.join(arguments) or 'nothing'}"
        )
    name, workdir = arguments[0], pathlib.Path(arguments[1])
    block = BLOCKS[name]
    page, collected = pathlib.Path(block.page), block.collect(workdir)
    if collected is None:
        raise SystemExit(f"error: expected {workdir} to have results for {name}, got none")
    text = put(page.read_text("utf-8"), name, block.markdown(collected))
    if block.picture:
        image = block.picture(workdir)
        path = pathlib.Path(".assets", f"{name}.jpg")
        atomic.write_atomic(path, lambda part: image.save(part, "JPEG", quality=_QUALITY))
    atomic.write_json(pathlib.Path(".assets", f"{name}.json"), collected)
    atomic.write_text(page, text)


if __name__ == "__main__":
    main(sys.argv[1:])
