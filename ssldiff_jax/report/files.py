"""Files of a run that the page links to, and the command that repeats the run."""

import html
import pathlib
import shlex
import shutil
from collections.abc import Mapping
from typing import Any

from ssldiff_jax.data import csv_cells
from ssldiff_jax.formats import atomic

_COPIED = {
    "config.json": "every key of the config",
    "evaluate/results.json": "all metrics of the evaluation",
    "results.csv": "a row for every evaluation of this run",
}
"""Small files that are put beside the page, so that they go where it goes."""

_IMAGES = {
    ".png": "PNG",
    ".tif": "pyramidal TIFF",
    ".ome.tif": "OME-TIFF",
    ".cog.tif": "cloud-optimised GeoTIFF",
    ".dzi": "Deep Zoom",
}


def part(workdir: pathlib.Path, folder: pathlib.Path, metrics: Mapping[str, Any]) -> str:
    """Links to images, figures and config; a command to copy."""
    return (
        f"<h3>Images at full resolution</h3>{_images(workdir)}"
        f"<h3>Metrics and config</h3>{_records(workdir, folder)}"
        f"<h3>Command that repeats this run</h3>{_command(workdir, metrics)}"
    )


def _images(workdir: pathlib.Path) -> str:
    """Links out of the page's folder: large images stay in the work directory, beside it."""
    items = []
    for i in range(len(atomic.read_json(workdir / "patches" / "regions.json"))):
        for stem in (f"image_{i}", f"patches_{i}"):
            paths = {workdir / "sample" / f"{stem}{suffix}": n for suffix, n in _IMAGES.items()}
            links = [
                f'<a href="../sample/{path.name}">{path.name}</a> <small>{kind}, '
                f"{_bytes(path.stat().st_size)}</small>"
                for path, kind in paths.items()
                if path.exists()
            ]
            kind = "generated image" if stem.startswith("image") else "patches generated one by one"
            if links:
                items.append(f"<li>Region {i + 1}, {kind}: {', '.join(links)}</li>")
    hint = (
        '<p class="hint">These lie in the folder <code>sample</code> of the work directory; the '
        "links work where this page is still in its work directory. TIFFs open in QuPath, "
        "OpenSlide or QGIS.</p>"
    )
    return f'<ul class="files">{"".join(items)}</ul>{hint}'


def _records(workdir: pathlib.Path, folder: pathlib.Path) -> str:
    items = []
    for name, what in _COPIED.items():
        source = workdir / name
        if not source.exists():
            continue
        atomic.write_atomic(
            folder / source.name, lambda path, source=source: shutil.copyfile(source, path)
        )
        row = _row(workdir) if source.suffix == ".csv" else ""
        items.append(f'<li><a href="{source.name}">{source.name}</a> {what}{row}</li>')
    return f'<ul class="files">{"".join(items)}</ul>'


def _row(workdir: pathlib.Path) -> str:
    """Which row of `results.csv` the figures of this page are; empty where none is."""
    # Only the stage evaluate notes which sample its metrics are of.
    done = atomic.read_json(workdir / "sample" / "done.json")
    with (workdir / "results.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv_cells.written_rows(file))
    numbers = [
        number for number, row in enumerate(rows, start=1) if row.get("sample") == done["digest"]
    ]
    if not numbers:
        return ""
    date = html.escape(rows[numbers[-1] - 1].get("date", ""))
    return f"; the metrics of this page are row {numbers[-1]} of {len(rows)} ({date})"


def command(workdir: pathlib.Path, commit: str) -> str:
    """Shell lines that repeat a run in a new work directory, from the config that it recorded."""
    # Outside a repository there is no commit to go back to.
    lines = [] if commit == "unknown" else [f"git checkout {commit.removesuffix('-dirty')}"]
    return "\n".join((
        *lines,
        "mkdir -p runs/again",
        f"cp {shlex.quote(str(workdir / 'config.json'))} runs/again/",
        "python -m ssldiff_jax.main --workdir=runs/again --config.stages=all",
    ))  # fmt: skip


def _command(workdir: pathlib.Path, metrics: Mapping[str, Any]) -> str:
    commit = metrics["environment"]["versions"].get("git", "unknown")
    text = html.escape(command(workdir, commit))
    changed = " Its code had changes that were not committed." if commit.endswith("-dirty") else ""
    return (
        '<div class="command"><pre tabindex="0" aria-label="command"><code>'
        f'{text}</code></pre><button type="button" data-copy hidden>Copy</button></div>'
        '<p class="hint">Run in the root of the repository. Away from the work directory, copy the '
        f"<code>config.json</code> that lies beside this page.{changed}</p>"
    )


def _bytes(count: int) -> str:
    """In decimal units, as file managers show them."""
    for factor, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= factor:
            return f"{count / factor:.3g} {unit}"
    return f"{count} B"
