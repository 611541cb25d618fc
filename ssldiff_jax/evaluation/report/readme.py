"""Blocks of the README that are made from results of a run, and never written by hand.

`python -m ssldiff_jax.evaluation.report.readme runs/demo`, in the root of the repository, renews
those of which the run has the results.
"""

import dataclasses
import functools
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ssldiff_jax.core import files
from ssldiff_jax.evaluation.report import (
    archive_table,
    figures,
    judgement_table,
    study_table,
    unseen_table,
)


@dataclasses.dataclass(frozen=True)
class Block:
    """Text between `<!-- name -->` and `<!-- /name -->`.

    Attributes:
        collect: what `.assets/NAME.json` holds of a work directory; None where it has not that.
        markdown: the text of it.
    """

    collect: Callable[[pathlib.Path], Mapping[str, Any] | None]
    markdown: Callable[[Mapping[str, Any]], str]


BLOCKS = {
    "demo": Block(figures.of_run, figures.markdown),
    "archive": Block(archive_table.collect, archive_table.markdown),
    "judgement": Block(judgement_table.collect, judgement_table.markdown),
    "unseen": Block(unseen_table.collect, unseen_table.markdown),
    **{
        f"study_{labels}": Block(
            functools.partial(study_table.collect, labels=labels), study_table.markdown
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
    """Write what a run has into `.assets` and `README.md`; both stay as they are on an error."""
    if len(arguments) != 1:
        raise SystemExit(f"error: expected one work directory, got {len(arguments)} arguments")
    workdir, readme = pathlib.Path(arguments[0]), pathlib.Path("README.md")
    found = {name: block.collect(workdir) for name, block in BLOCKS.items()}
    found = {name: values for name, values in found.items() if values is not None}
    if not found:
        raise SystemExit(
            f"error: expected {workdir} to have report/figures.json, study/results.json, or rows "
            "on archives or judging in bench/results.json, got none"
        )
    text = readme.read_text("utf-8")
    for name, values in found.items():
        text = put(text, name, BLOCKS[name].markdown(values))
    for name, values in found.items():
        files.write_json(pathlib.Path(".assets", f"{name}.json"), values)
    files.write_text(readme, text)


if __name__ == "__main__":
    main(sys.argv[1:])
