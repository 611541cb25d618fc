"""Whether a table of slides still says what it said when records were cut."""

import json
import os
from collections.abc import Iterator

from ssldiff_jax.core import schema
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.runs.workdir import folders as folders_lib
from ssldiff_jax.runs.workdir import provenance


def found(config: run_config.RunConfig, folders: folders_lib.Folders) -> Iterator[str]:
    """A line where it does not: what is trained on may be what it now holds out.

    Where the table is not at hand, as in a job that only reads what was made, nothing is said.
    """
    data = config.data
    if not data.is_table or not folders.is_done("patches") or folders.borrows("patches"):
        return
    # Not at the top: a machine that only computes can open no slides.
    from ssldiff_jax.data import named_slides, slide_table

    if not all(os.path.exists(os.path.expanduser(p.strip())) for p in data.slides.split(",")):
        return
    stored = (provenance.stored(folders, "patches") or {"config": {}})["config"].get("inputs")
    try:
        now = named_slides.table_facts(named_slides.slides(data))
    except (slide_table.SlideTableError, schema.ConfigError) as error:
        yield str(error)
        return
    # As JSON gives it back.
    if stored and stored.get("table") != json.loads(json.dumps(now)).get("table"):
        yield (
            f"{data.slides} must say what it said when stage 'patches' was done (mpp, case, label, "
            "split and reading of each slide), got another table: --config.force=patches cuts anew "
            "what it changes"
        )
