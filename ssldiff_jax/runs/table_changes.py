"""Whether a table of slides still says what it said when records were cut."""

import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

from ssldiff_jax.core import schema
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.runs.workdir import changed_facts, provenance
from ssldiff_jax.runs.workdir import folders as folders_lib


def found(config: run_config.RunConfig, folders: folders_lib.Folders) -> Iterator[str]:
    """A line where it does not: what is trained on may be what it now holds out.

    Where the table is not at hand, as in a job that only reads what was made, nothing is said.
    """
    data = config.data
    if not data.is_table or not folders.is_done("patches") or folders.borrows("patches"):
        return
    # Not at the top: a machine that only computes can open no slides.
    from ssldiff_jax.data import named_slides, slide_table
    from ssldiff_jax.slides import remote

    stored = (provenance.stored(folders, "patches") or {"config": {}})["config"]
    before = stored.get("data", {}).get("slides", data.slides)
    parts = slide_table.parts_of(data.slides)
    gone = [part for part in parts if not os.path.exists(os.path.expanduser(part))]
    if gone and before != data.slides:
        yield (
            f"config.data.slides must name a table that is there, or {before} as when stage "
            f"'patches' was done, got {data.slides}: no such file"
        )
    if gone:
        return
    try:
        named = named_slides.slides(data)
    except (slide_table.SlideTableError, schema.ConfigError) as error:
        yield str(error)
        return
    names = [[remote.name_of(slide.source)] for slide in named]
    now = {"slides": names, **named_slides.table_facts(named)}
    noted = stored.get("inputs")
    if noted and "table" in noted and _said(noted) != _said(now):
        facts = (noted["table"], now["table"], noted["slides"], now["slides"])
        _, _, differ = changed_facts.line("inputs.table", *facts).partition(": ")
        yield (
            f"{data.slides} must say what it said when stage 'patches' was done (slides, and mpp, "
            f"case, label, split and reading of each), got another table ({differ}): "
            "--config.force=patches cuts anew what it changes"
        )


def _said(inputs: Mapping[str, Any]) -> list[str]:
    """What is said of each slide, by the name of its file, in any order."""
    pairs = zip(inputs["slides"], inputs["table"], strict=True)
    return sorted(json.dumps([name, facts]) for (name, *_), facts in pairs)
