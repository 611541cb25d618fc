"""One page that shows a run: pictures to compare, figures, losses, cost, config."""

import contextlib
import html
import json
import pathlib
import re
import string
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ssldiff_jax.formats import atomic
from ssldiff_jax.report import (
    charts,
    checkpoints,
    comparison,
    confusion,
    gallery,
    imagined,
    networks,
    pictures,
    seams,
    sections,
    study,
    viewer,
)
from ssldiff_jax.report import metrics as metrics_lib

_HERE = pathlib.Path(__file__).parent
_TRAININGS = ("encoder", "judge", "autoencoder", "denoiser", "prior")


def build(
    workdir: pathlib.Path,
    folder: pathlib.Path,
    metrics: Mapping[str, Any],
    *,
    compare: Sequence[pathlib.Path] = (),
) -> None:
    """Write `index.html`, and the pictures and the viewer it needs, into `folder`.

    `metrics` is what `metrics.collect` found in `workdir`; `compare` are work directories to show
    beside it. A part whose optional files (maps, variations, reconstructions, overviews, losses,
    what the modules of the parts name) are absent is left out; ValueError names any other missing
    file.
    """
    config = metrics_lib.read(workdir / "config.json")
    places = metrics_lib.read(workdir / "patches" / "regions.json")
    eye = "encoder" if metrics["encoder"] else "judge"
    regions = [_region(workdir, folder, i, place, config, eye) for i, place in enumerate(places)]
    parts = (
        _section("Real and synthetic", viewer.comparisons(regions, folder)),
        _section("Imagined", imagined.part(workdir, folder)),
        _section("Patches", gallery.draws(workdir, folder, metrics)),
        _section("Variations", gallery.variations(workdir, folder, regions[0].cell_px)),
        _section("By every network", networks.part(metrics)),
        _section("Nearest training patches", gallery.nearest(workdir, folder)),
        _section("Downstream", study.part(workdir)),
        _section("Confusion", confusion.part(workdir)),
        _section("Slides", _slides(workdir, folder, config)),
        _section("Losses", _losses(workdir)),
        _section("Checkpoints", checkpoints.part(workdir)),
        _section("Cost and encoders", _cost(metrics)),
        _section("Runs compared", comparison.comparison([workdir, *compare]) if compare else ""),
        _section("Config and environment", _settings(config, metrics["environment"])),
    )
    rows, cols = regions[0].lattice
    filled = string.Template((_HERE / "page.html").read_text("utf-8")).substitute(
        title="Images drawn from embeddings",
        lead=_lead(regions, config, metrics),
        meta=_meta(places, config, metrics),
        contents=_contents(parts),
        figures=sections.key_figures(metrics, rows * cols),
        sections="\n".join(part for part in parts if part),
        style=(_HERE / "style.css").read_text("utf-8"),
        viewer=viewer.scripts(folder),
        script=(_HERE / "viewer.js").read_text("utf-8"),
    )
    atomic.write_atomic(folder / "index.html", lambda path: _write(path, filled))


def _write(path: pathlib.Path, text: str) -> None:
    # A file name need not be valid Unicode.
    path.write_text(text, encoding="utf-8", errors="replace")


def _section(title: str, body: str) -> str:
    name = title.lower().replace(" ", "-")
    return f'<section id="{name}"><h2>{title}</h2>{body}</section>' if body else ""


def _contents(parts: Sequence[str]) -> str:
    """A link to every section."""
    found = [re.match(r'<section id="([\w-]+)"><h2>([^<]+)', part) for part in parts]
    return "".join(f'<li><a href="#{m[1]}">{m[2]}</a></li>' for m in found if m)


def _region(
    workdir: pathlib.Path,
    folder: pathlib.Path,
    i: int,
    place: dict[str, Any],
    config: dict,
    eye: str,
) -> viewer.Region:
    reference = workdir / "patches" / f"region_{i}.png"
    page = place["kind"] == "page"
    drawn = "patches" if page else "image"
    synthetic = workdir / "sample" / f"{drawn}_{i}.png"
    shown = pictures.zoomable(reference, folder / f"reference_{i}.png")
    similarity = workdir / "evaluate" / f"similarity_{i}.npy"
    image = _optional(workdir / "sample" / f"image_{i}.json", {})
    return viewer.Region(
        title=_title(i, place),
        reference=shown,
        synthetic=pictures.zoomable(synthetic, folder / f"synthetic_{i}.png"),
        cell_px=config["data"]["crops"]["patch_px"],
        similarity=np.load(similarity).astype(float) if similarity.exists() else None,
        eye=eye,
        windows=None if page else seams.window_lines(image),
    )


def _title(i: int, place: dict[str, Any]) -> str:
    name, size = place["slide_name"], f"{place['height']:,} × {place['width']:,} px"
    if place["kind"] == "page":
        return f"Page {i + 1}: held-out patches of {name} side by side, {size}, each drawn alone"
    return f"Region {i + 1}: {name}, {size} at row {place['top']:,}, column {place['left']:,}"


def _lead(regions: list[viewer.Region], config: dict, metrics: Mapping[str, Any]) -> str:
    first, count = regions[0], len(regions)
    rows, cols = first.lattice
    numbers = f"{metrics['embedding_dim']:,} numbers for a square of {first.cell_px} px."
    if not metrics["large_image"]:
        return (
            f"For {count * rows * cols:,} held-out patches, shown side by side, a synthetic one "
            f"each, drawn from its embedding and nothing else: {numbers}"
        )
    source = f"the region’s {rows * cols:,} cells"
    if config.get("sample", {}).get("conditioning") == "dense":
        source = "the region at the place of every window, at every step"
    whose = "a held-out region" if count == 1 else f"each of {count} held-out regions"
    return (
        f"For {whose}, a synthetic image of {first.synthetic.height:,} × "
        f"{first.synthetic.width:,} px, drawn from embeddings of {source}, and nothing else: "
        f"{numbers}"
    )


def _meta(places: list[dict], config: dict, metrics: Mapping[str, Any]) -> str:
    versions = metrics["environment"]["versions"]
    facts = (
        metrics["date"],
        ", ".join(sorted({place["slide_name"] for place in places})),
        f"seed {config.get('seed', '–')}",
        f"config {metrics['config_digest']}",
        f"commit {versions.get('git', 'unknown')}",
    )
    return " · ".join(f"<span>{html.escape(str(fact))}</span>" for fact in facts)


def _slides(workdir: pathlib.Path, folder: pathlib.Path, config: dict) -> str:
    names = _optional(workdir / "patches" / "done.json", {}).get("facts", {}).get("slides", {})
    figures = []
    for source in sorted((workdir / "patches").glob("overview_*.png"), key=_number):
        name = names.get(str(_number(source)), source.stem)
        picture = pictures.copy(source, folder / source.name)
        figures.append(
            f"<figure>{picture.img(f'overview of {name}')}"
            f"<figcaption>{html.escape(name)}</figcaption></figure>"
        )
    skipped = "".join(
        f"<li><b>{html.escape(pathlib.PurePath(s['slide']).name)}</b> {html.escape(s['reason'])}"
        "</li>"
        for s in _quarantined(workdir / "patches" / "quarantine.jsonl")
    )
    body = ""
    if figures:
        mpp = config["data"].get("patch_mpp")
        body = '<p class="hint">Pale: no tissue. <b class="held">Blue</b>: held out of training. '
        body += '<b class="ref">Red</b>: the regions above. '
        body += f"Patches were read at {charts.number(mpp)} µm per pixel.</p>"
        body += f'<div class="slides">{"".join(figures)}</div>'
    return body + (f'<h4>Quarantined</h4><ul class="skipped">{skipped}</ul>' if skipped else "")


def _quarantined(path: pathlib.Path) -> list[dict]:
    return [json.loads(x) for x in path.read_text().splitlines()] if path.exists() else []


def _number(path: pathlib.Path) -> int:
    return int(path.stem.rpartition("_")[2])


def _optional(path: pathlib.Path, default: Any) -> Any:
    return atomic.read_json(path) if path.exists() else default


def _losses(workdir: pathlib.Path) -> str:
    found = []
    for name in _TRAININGS:
        path = workdir / name / "metrics.jsonl"
        if not path.exists():
            continue
        points = charts.loss_points(_lines(path))
        if points:
            step, loss = points[-1]
            found.append(
                f"<figure><figcaption><b>{name}</b> {charts.number(loss)} "
                f"<small>at step {step:,}</small></figcaption>"
                f"{charts.line_chart(points, f'loss of the {name} over steps')}</figure>"
            )
    return f'<div class="losses">{"".join(found)}</div>' if found else ""


def _lines(path: pathlib.Path) -> Iterator[dict[str, Any]]:
    for line in path.read_text("utf-8").splitlines():
        # A run that was killed while it wrote leaves half a line.
        with contextlib.suppress(json.JSONDecodeError):
            yield json.loads(line)


def _cost(metrics: Mapping[str, Any]) -> str:
    encoders = {"encoder": metrics["encoder"], "judge": metrics["judge_encoder"]}
    known = {name: facts for name, facts in encoders.items() if facts}
    return (
        f'<div class="pair"><div>{sections.stage_table(metrics["stages"])}</div><div>'
        f'{sections.encoder_table(known)}<p class="hint">Retrieval: the share of held-out patches '
        "found again from a view some pixels away. Effective rank: how many directions the "
        "embeddings really use. The judge is trained apart and used for figures only.</p>"
        "</div></div>"
    )


def _settings(config: dict, environment: Mapping[str, Any]) -> str:
    return (
        f'<h4>Environment</h4><dl class="tree">{sections.key_values(environment)}</dl>'
        "<details><summary>The whole config</summary>"
        f'<dl class="tree">{sections.key_values(config)}</dl></details>'
    )
