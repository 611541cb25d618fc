"""One page that shows a run: what was trained, pictures to compare, metrics, curves, cost, files.

The order of the page is the order of `_parts`.
"""

import html
import pathlib
import re
import string
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ssldiff_jax.formats import atomic
from ssldiff_jax.report import (
    checkpoints,
    comparison,
    confusion,
    files,
    gallery,
    imagined,
    key_figures,
    levels,
    losses,
    networks,
    overviews,
    regions,
    sections,
    structure,
    study,
    training,
    viewer,
)
from ssldiff_jax.report import metrics as metrics_lib

_HERE = pathlib.Path(__file__).parent


def build(
    workdir: pathlib.Path,
    folder: pathlib.Path,
    metrics: Mapping[str, Any],
    *,
    compare: Sequence[pathlib.Path] = (),
) -> None:
    """Write `index.html`, and the pictures and the viewer it needs, into `folder`.

    `metrics` is what `metrics.collect` read from `workdir`; `compare` are work directories to show
    beside it. A part whose optional files (maps, variations, reconstructions, overviews, losses,
    what the modules of the parts name) are absent is left out; ValueError names any other missing
    file.
    """
    config = metrics_lib.read(workdir / "config.json")
    pairs = regions.of_run(workdir, folder, metrics)
    parts = [
        _section(name, title, body)
        for name, title, body in _parts(workdir, folder, metrics, config, pairs, compare)
        if body
    ]
    filled = string.Template((_HERE / "page.html").read_text("utf-8")).substitute(
        title="Images generated from embeddings",
        run=html.escape(workdir.resolve().name),
        lead=regions.lead(pairs, config, metrics),
        trained=training.part(workdir, metrics, config),
        meta=_meta(metrics),
        contents=_contents(parts),
        sections="\n".join(parts),
        style=(_HERE / "style.css").read_text("utf-8"),
        viewer=viewer.scripts(folder),
        script=viewer.own_scripts(),
    )
    atomic.write_atomic(folder / "index.html", lambda path: _write(path, filled))


def _parts(
    workdir: pathlib.Path,
    folder: pathlib.Path,
    metrics: Mapping[str, Any],
    config: Mapping[str, Any],
    pairs: Sequence[viewer.Region],
    compare: Sequence[pathlib.Path],
) -> Iterable[tuple[str, str, str]]:
    """Name, title and content of every section: pictures first, then metrics, then the run."""
    data = metrics["data"]
    px, mpp = data["patch_px"], data["mpp"]

    yield "regions", "Real and generated images", viewer.comparisons(pairs, folder)
    yield "patches", "Single patches", gallery.patches(workdir, folder, px, mpp)
    yield "variations", "Same embeddings, other noise", gallery.variations(workdir, folder, px, mpp)
    yield "unreferenced", "Images without a real counterpart", imagined.images(workdir, folder, mpp)
    yield "reconstructions", "Autoencoder", gallery.reconstructions(workdir, folder, metrics)
    yield "nearest", "Nearest training patches", gallery.nearest(workdir, folder, mpp)

    yield "metrics", "Metrics of generated images", key_figures.part(metrics)
    yield "structure", "Structure of large images", structure.part(metrics)
    yield "networks", "Metrics by feature network", networks.part(metrics)
    yield "levels", "Metrics by level", levels.part(metrics, config["data"].get("patch_mpp"))
    yield "classes", "Classes of generated patches", confusion.part(workdir)
    yield "prior", "Metrics of the prior", imagined.figures(workdir)
    yield "downstream", "Classifiers trained on generated patches", study.part(workdir)

    yield "slides", "Slides", overviews.part(workdir, folder, mpp)
    yield "curves", "Training curves", losses.part(workdir)
    yield "checkpoints", "Fréchet distance by checkpoint", checkpoints.part(workdir)
    yield "cost", "Time, memory and encoders", _cost(metrics)
    others = comparison.comparison([workdir, *compare]) if compare else ""
    yield "runs", "Runs compared", others
    yield "files", "Files and command", files.part(workdir, folder, metrics)
    yield "config", "Config and environment", _settings(config, metrics["environment"])


def _write(path: pathlib.Path, text: str) -> None:
    # A file name need not be valid Unicode.
    path.write_text(text, encoding="utf-8", errors="replace")


def _section(name: str, title: str, body: str) -> str:
    return f'<section id="{name}"><h2>{title}</h2>{body}</section>'


def _contents(parts: Sequence[str]) -> str:
    """A link to every section."""
    heads = [re.match(r'<section id="([\w-]+)"><h2>([^<]+)', part) for part in parts]
    return "".join(f'<li><a href="#{m[1]}">{m[2]}</a></li>' for m in heads if m)


def _meta(metrics: Mapping[str, Any]) -> str:
    commit = metrics["environment"]["versions"].get("git", "unknown")
    facts = (f"finished {metrics['date']}", f"code {commit}")
    return " · ".join(f"<span>{html.escape(fact)}</span>" for fact in facts)


def _cost(metrics: Mapping[str, Any]) -> str:
    encoders = {"encoder": metrics["encoder"], "judge": metrics["judge_encoder"]}
    known = {name: facts for name, facts in encoders.items() if facts}
    stages = sections.stage_table(metrics["stages"], metrics["elapsed"])
    return (
        f'<div class="pair"><div>{stages}</div><div>'
        f'{sections.encoder_table(known)}<p class="hint">Retrieval: the share of held-out patches '
        "whose nearest embedding, among those of all tested patches, is that of the same patch "
        "moved by some pixels, or enlarged with changed colours. Effective rank: how many "
        "directions the embeddings use.</p></div></div>"
    )


def _settings(config: Mapping[str, Any], environment: Mapping[str, Any]) -> str:
    return (
        f'<h3>Environment</h3><dl class="tree">{sections.key_values(environment)}</dl>'
        "<details><summary>All config keys</summary>"
        f'<dl class="tree">{sections.key_values(config)}</dl></details>'
    )
