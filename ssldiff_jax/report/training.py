"""What a run trained, for the head of the page: data, models, steps, minutes and hardware."""

import contextlib
import dataclasses
import html
import json
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ssldiff_jax.data import csv_cells
from ssldiff_jax.formats import atomic
from ssldiff_jax.report import charts, figures, sections, tables, units

MODELS = ("encoder", "autoencoder", "denoiser", "distill", "prior", "tokens", "judge")
"""Stages that train a model."""

SHORT_MINUTES = 60
SHORT_STEPS = 20_000
PUBLISHED_STEPS = 150_000
"""A run is short below either of the first two. The last is what the published model of TCGA-BRCA
at 20× was trained for (`configs/default.py`)."""

_ROLES = {
    "encoder": "encoder: turns patches into the embeddings that condition the generator",
    "autoencoder": "autoencoder: turns pixels into latents and back",
    "denoiser": "denoiser: generates latents from embeddings",
    "distill": "the denoiser's student: generates the same in few steps",
    "prior": "prior: generates grids of embeddings from labels or text",
    "tokens": "tokens: generates the tokens of a cell from its embedding",
    "judge": "the judge: an encoder the generator never sees",
}
_NAMED = 3  # slides


@dataclasses.dataclass(frozen=True)
class Model:
    """A trained model; None stands for what was not recorded.

    Attributes:
        parameters: of all that was trained, heads that only training has among them.
        steps: optimizer steps; 0 where published weights were used as they are.
        seconds: wall-clock time of training, over all processes that resumed it.
        start: "" for a random start, else where weights come from.
    """

    name: str
    parameters: int | None
    steps: int
    batch_size: int | None
    seconds: float | None
    start: str = ""


def lines(path: pathlib.Path) -> Iterator[dict[str, Any]]:
    """Lines of JSON, such as a training logs; nothing where there is no such file."""
    for line in path.read_text("utf-8").splitlines() if path.exists() else ():
        # A run that was killed while it wrote leaves half a line.
        with contextlib.suppress(json.JSONDecodeError):
            yield json.loads(line)


def models_of(workdir: pathlib.Path, config: Mapping[str, Any]) -> list[Model]:
    """The models in `workdir`, in the order of the stages."""
    folders = [workdir / name for name in MODELS]
    return [_model(folder, config) for folder in folders if _is_model(folder)]


def _is_model(folder: pathlib.Path) -> bool:
    """Whether its step is done and made one: that of tokens makes none where a cell has one."""
    done = folder / "done.json"
    return done.exists() and atomic.read_json(done).get("facts", {}).get("tokens_per_side") != 1


def _model(folder: pathlib.Path, config: Mapping[str, Any]) -> Model:
    section = config.get(folder.name, {})
    done, logged = atomic.read_json(folder / "done.json"), list(lines(folder / "metrics.jsonl"))
    imported = done.get("facts", {}).get("imported")
    weights = section.get("weights") or ""
    table = folder / "parameters.txt"
    total = (
        # The last line of clu's parameter overview.
        re.search(r"^Total: ([\d,]+)", table.read_text("utf-8"), re.M) if table.exists() else None
    )
    return Model(
        name=folder.name,
        parameters=int(total[1].replace(",", "")) if total else None,
        # A training that was resumed logs some steps again, and its seconds count on.
        steps=max((line.get("step", 0) for line in logged), default=0),
        batch_size=section.get("train", {}).get("batch_size"),
        seconds=max((line.get("seconds", 0.0) for line in logged), default=None),
        start="embeddings computed elsewhere" if imported else weights and "published weights",
    )


def part(workdir: pathlib.Path, metrics: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """The facts and the table of models; a note above them where the training was short."""
    models = pathlib.Path(config.get("models") or workdir).expanduser()
    # Of the run that trained them: its data and its steps.
    own = atomic.read_json(models / "config.json") if config.get("models") else config
    trained = models_of(models, own)
    seconds = [m.seconds for m in trained if m.seconds]
    facts = {
        "Config": html.escape(_config(workdir, models, metrics)),
        "Data": html.escape(_data(workdir, models, own)),
        "Hardware": html.escape(figures.hardware(_machine(models, metrics))),
        "Training time": f"{sections.duration(sum(seconds))}, all models together"
        if seconds
        else "",
    }
    shown = "".join(f"<dt>{name}</dt><dd>{fact}</dd>" for name, fact in facts.items() if fact)
    note = caution(trained, facts["Hardware"])
    return (
        f'<p class="caution" role="note">{note}</p>' if note else ""
    ) + f'<div class="trained"><dl>{shown}</dl>{_table(trained)}</div>'


def _config(workdir: pathlib.Path, models: pathlib.Path, metrics: Mapping[str, Any]) -> str:
    """The config file of the first command, where one is recorded, and what tells runs apart."""
    words = next((line.get("words", []) for line in lines(workdir / "commands.jsonl")), [])
    paths = [word.partition("=")[2] for word in words if word.startswith("--config=")]
    facts = [
        *paths[:1],
        f"run {workdir.resolve().name}",
        f"digest {metrics['config_digest']}",
        f"seed {metrics['seed']}",
    ]
    if models != workdir:
        facts.append(f"models of run {models.resolve().name}")
    return ", ".join(facts)


def _machine(models: pathlib.Path, metrics: Mapping[str, Any]) -> Mapping[str, Any]:
    """The machine that trained what generates."""
    done = models / "denoiser" / "done.json"
    noted = atomic.read_json(done).get("machine") if done.exists() else None
    return noted or metrics["environment"]["machine"]


def caution(trained: Sequence[Model], hardware: str) -> str:
    """That a run is too short to show what the method can do, by what it recorded; else empty.

    `hardware` must be safe in HTML. A denoiser that starts from published weights is as good as
    these, however short the run.
    """
    denoiser = next((m for m in trained if m.name == "denoiser"), None)
    if denoiser is None or denoiser.start:
        return ""
    minutes = sum(m.seconds or 0.0 for m in trained) / 60
    if minutes >= SHORT_MINUTES and denoiser.steps >= SHORT_STEPS:
        return ""
    return (
        f"<b>A short run: it does not show what the method can do.</b> All models together trained "
        f"for {charts.number(minutes)} minutes on {hardware}; the denoiser for "
        f"{denoiser.steps:,} steps. This note stands on every page of a run below "
        f"{SHORT_MINUTES} minutes of training or {SHORT_STEPS:,} steps of the denoiser; the "
        f"published model took {PUBLISHED_STEPS:,} steps."
    )


def _data(workdir: pathlib.Path, models: pathlib.Path, config: Mapping[str, Any]) -> str:
    """Slides and patches of training, and those held out; the latter are of `workdir`."""
    section = config["data"]
    patch_px, mpp = section["crops"]["patch_px"], section.get("patch_mpp")
    record_px = section.get("records", {}).get("record_px") or patch_px
    what = "patches" if record_px == patch_px else "squares"
    train, test = (_split(f, s, what) for f, s in ((models, "train"), (workdir, "test")))
    said = [f"Trained on {train}." if train else "", f"Held out: {test}." if test else ""]
    size, at = units.size(record_px, record_px, mpp), units.resolution(mpp)
    said.append(f"Each is {size}{f', at {at}' if at else ''}.")
    if record_px != patch_px:
        said.append(f"Patches of {units.size(patch_px, patch_px, mpp)} are cropped from them.")
    return " ".join(filter(None, said))


def _split(workdir: pathlib.Path, split: str, what: str) -> str:
    """How many records of a split there are, and of which slides."""
    facts = atomic.read_json(workdir / "patches" / "done.json").get("facts", {})
    count = facts.get("records", {}).get(split)
    if count is None:
        return ""
    names = [str(name) for name in facts.get("slides", {}).values()]
    table, source = slides(workdir), "list"
    if table:
        names, source = [row["slide"] for row in table.values() if int(row[split])], "slide"
    plural = "" if len(names) == 1 else "s"
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return (
        f"{count:,} {what} of {len(names):,} {source}{plural} ({', '.join(names[:_NAMED])}{more})"
    )


def slides(workdir: pathlib.Path) -> dict[int, dict[str, str]]:
    """Lines of `patches/slides.csv` by the number of a slide; empty of a list of patches."""
    path = workdir / "patches" / "slides.csv"
    if not path.exists():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        return {int(row["number"]): row for row in csv_cells.written_rows(file)}


def _count(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"


def _table(trained: Sequence[Model]) -> str:
    head = "".join(
        f'<th scope="col">{name}</th>'
        for name in ("parameters", "steps", "patches per step", "training time")
    )
    body = "".join(
        f'<tr><th scope="row">{_ROLES[m.name]}'
        f"{f'; {m.start}' if m.start else ''}</th>"
        f"<td>{_count(m.parameters)}</td><td>{_count(m.steps)}</td><td>{_count(m.batch_size)}</td>"
        f"<td>{'–' if m.seconds is None else sections.duration(m.seconds)}</td></tr>"
        for m in trained
    )
    if not body:
        return ""
    return tables.scrollable(
        "models and their training",
        f"<table><thead><tr><td></td>{head}</tr></thead><tbody>{body}</tbody></table>",
    )
