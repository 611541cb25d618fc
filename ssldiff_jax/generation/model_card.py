"""What lies beside exported models so that their folder can be published: `config.json`, and the
card `README.md`, whose head is YAML as the Hub reads it."""

import dataclasses
import json
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ssldiff_jax.core import pixel_units
from ssldiff_jax.encoders import encoder
from ssldiff_jax.formats import atomic, hub
from ssldiff_jax.generation import exported
from ssldiff_jax.report import figures as figures_lib
from ssldiff_jax.report import goals

CARD = "README.md"
_TASK = "image-to-image"
_TAGS = ("jax", "flax", "safetensors", "latent-diffusion", "representation-guided-diffusion")
# Identifiers that the Hub knows; all others are "other", with a name.
_LICENCES = frozenset({
    "afl-3.0", "agpl-3.0", "apache-2.0", "artistic-2.0", "bsd", "bsd-2-clause", "bsd-3-clause",
    "bsl-1.0", "cc", "cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0", "cc-by-nc-2.0",
    "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0", "cc-by-nc-sa-2.0",
    "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "cc-by-nd-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0",
    "cc0-1.0", "cdla-permissive-1.0", "cdla-permissive-2.0", "ecl-2.0", "epl-2.0", "eupl-1.2",
    "gpl-2.0", "gpl-3.0", "isc", "lgpl-2.1", "lgpl-3.0", "mit", "mpl-2.0", "odbl", "openrail",
    "unlicense", "wtfpl", "zlib",
})  # fmt: skip
_FILES = {
    exported.DENOISER: "the UNet, its conditioner and the autoencoder: enough to generate from "
    "embeddings",
    exported.STUDENT: "its student, for few steps",
    exported.ENCODER: "what embeds images",
    exported.PRIOR: "what samples grids of embeddings",
    exported.TOKENS: "what samples the tokens of their cells",
}


@dataclasses.dataclass(frozen=True)
class TrainingData:
    """What a run was trained on, without the names of its files.

    Attributes:
        digest: a hash of what files are known by: names, sizes, check sums.
        sources: number of slides, or of patches of a list.
        records: number of squares of each split.
    """

    digest: str
    sources: int
    records: Mapping[str, int]


@dataclasses.dataclass(frozen=True)
class About:
    """What the card says beside what every file does.

    Attributes:
        name: of the models.
        figures: what `report.figures.collect` gives of the run; None where nothing measured it.
        unmeasured: why not.
    """

    name: str
    data: TrainingData
    figures: Mapping[str, Any] | None
    unmeasured: str = ""


def write(
    folder: pathlib.Path, card: exported.Card, about: About, models: Sequence[pathlib.Path]
) -> list[pathlib.Path]:
    """Write `config.json` and the card of the files `models` in `folder`; returns both."""
    config, page = folder / exported.CONFIG, folder / CARD
    atomic.write_json(config, card.plain() | {"data": dataclasses.asdict(about.data)})
    lines = [*_head(card, about), *_page(card, about, [path.name for path in models])]
    atomic.write_text(page, "\n".join(lines) + "\n")
    return [config, page]


def _head(card: exported.Card, about: About) -> Iterator[str]:
    """YAML, of which JSON is a part."""
    say = lambda value: json.dumps(value, ensure_ascii=False)
    yield "---"
    for key, value in _licence(card.licence).items():
        yield f"{key}: {say(value)}"
    yield f"library_name: {say(exported.LIBRARY)}"
    yield f"pipeline_tag: {say(_TASK)}"
    yield "tags:"
    yield from (f"- {say(tag)}" for tag in _TAGS)
    if bases := _bases(card.config):
        yield "base_model:"
        yield from (f"- {say(base)}" for base in bases)
    if metrics := _metrics(about.figures or {"figures": ()}):
        yield "model-index:"
        yield f"- name: {say(about.name)}"
        yield "  results:"
        task = {"type": _TASK, "name": "images from embeddings of held-out parts"}
        held_out = {"type": f"held-out-{about.data.digest}", "name": "held-out part of its data"}
        yield f"  - task: {say(task)}"
        yield f"    dataset: {say(held_out)}"
        yield "    metrics:"
        yield from (f"    - {say(metric)}" for metric in metrics)
    yield from ("---", "")


def _licence(stated: str) -> dict[str, str]:
    if stated == exported.NOT_STATED:
        return {"license": "unknown"}
    name = _slug(stated)
    return {"license": name} if name in _LICENCES else {"license": "other", "license_name": name}


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9.+-]+", "-", text.lower()).strip("-")


def _bases(config: Mapping[str, Any]) -> list[str]:
    """Models of the Hub that weights in the files began as, or are."""
    named = (config[section]["weights"] for section in ("autoencoder", "denoiser"))
    return [hub.Address.parse(weights).repo for weights in named if hub.is_address(weights)]


def _metrics(collected: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The figures that have an interval: these alone can be held against another model's."""
    metrics = []
    for figure in collected["figures"]:
        for who in goals.ENCODERS:
            value = figure.get(who, [None])[0]
            if not goals.is_estimate(value) or value["low"] is None:
                continue
            # What follows is about the values beside it.
            name = figure["name"].partition("(")[0].strip()
            low, high = (round(value[end], 6) for end in ("low", "high"))
            metrics.append({
                "type": _slug(name), "value": round(goals.point(value), 6),
                "name": f"{name}, by the {who}",
                "args": {"interval_95": [low, high]},
            })  # fmt: skip
    return metrics


def _page(card: exported.Card, about: About, files: Sequence[str]) -> Iterator[str]:
    yield f"# {about.name}"
    yield ""
    yield (
        "Models that turn embeddings of image patches into images of any size, at "
        f"{pixel_units.length(card.mpp)} per pixel: learned representation-guided diffusion, "
        f"trained with {exported.LIBRARY}. For research; not for diagnosis."
    )
    yield ""
    yield from _how_to_load(card, exported.ENCODER in files)
    yield "| file | what it holds |"
    yield "|---|---|"
    yield from (f"| `{name}` | {_FILES[name]} |" for name in files)
    yield ""
    yield from _made_of(card, about.data)
    yield "## Figures"
    yield ""
    if about.figures is None:
        yield f"None: {about.unmeasured}."
    else:
        yield (
            "Of images generated from embeddings of held-out regions, as the run measured them. "
            "The judge is an encoder that the models never saw. Intervals are of 95 %; "
            f"{goals.MISSED.strip()} marks a goal that was missed."
        )
        yield ""
        yield figures_lib.origin(about.figures)
        yield ""
        yield figures_lib.table(about.figures)
    yield ""
    yield from _intended(card)


def _how_to_load(card: exported.Card, embeds: bool) -> Iterator[str]:
    """Four lines of Python."""
    embeds = embeds or hub.is_address(card.config["encoder"]["weights"])
    yield "```python"
    yield f"from {exported.LIBRARY} import Generator"
    yield 'generator = Generator.load("hf://ORG/NAME")  # or the path of this folder'
    if embeds:
        scale = f"{pixel_units.length(card.mpp)} per pixel"
        kind = _kind_of(card.config["data"]["reading"].get("multiband") or {})
        yield f"grid = generator.embed(pixels)  # {kind} of {scale}"
    else:
        dim = card.encoder["dim"]
        yield f'grid = numpy.load("grid.npy")  # (rows, columns, {dim}), of the encoder below'
    yield 'generator.generate(grid, size=(1024, 1024), seed=0).save("image.tif")'
    yield "```"
    yield ""
    yield (
        f"In the root of a clone of {exported.LIBRARY}. `hf://ORG/NAME@COMMIT` is always the same "
        "models. Nothing in this folder is executed."
    )
    yield ""


def _kind_of(multiband: Mapping[str, Any]) -> str:
    """What pixels are, in words."""
    names = multiband.get("names")
    if not names:
        return "uint8 RGB (H, W, 3)"
    return f"uint{multiband['bits']} (H, W, {len(names)}), {', '.join(names)},"


def _made_of(card: exported.Card, data: TrainingData) -> Iterator[str]:
    config, about = card.config, card.encoder
    held = config["data"]["holdout"]["by"]
    px = config["data"]["records"]["record_px"]
    counts = ", ".join(f"{count:,} {split}" for split, count in data.records.items())
    yield "## Trained on"
    yield ""
    named = config["data"]["slides"]
    yield f"- slides, or patches of a list: {data.sources:,}, named `{named}`; held out by {held}"
    yield f"- squares of {px} px: {counts}"
    yield f"- data digest `{data.digest}`, of the names, sizes and check sums of all files"
    versions = ", ".join(f"{name} {version}" for name, version in card.versions.items())
    yield f"- versions: {versions}"
    yield ""
    yield "## Encoder"
    yield ""
    name = "trained on the same data" if about["name"] == encoder.OWN else f"`{about['name']}`"
    weights = config["encoder"]["weights"]
    where = f", weights {weights}" if hub.is_address(weights) else ""
    yield (
        f"The embeddings are those of one encoder: {name}{where}; {about['dim']} numbers each, "
        f"digest `{about['digest']}`, licence as stated: {about['licence']}. Those of another "
        "encoder mean something else, even where they are as long."
    )
    yield ""


def _intended(card: exported.Card) -> Iterator[str]:
    yield "## Intended use and limits"
    yield ""
    yield (
        "For research: studies of models and of augmentation, teaching, tests of software. Not "
        "for diagnosis, treatment or any decision about a person or a place: generated images "
        "show what never was."
    )
    yield ""
    yield (
        "- An image generated from the embeddings of a reference shows the reference: it is data "
        "of the same person or place, and as private."
    )
    yield "- Models may repeat parts of the images that they were trained on."
    yield (
        f"- They know what they were trained on: images of {pixel_units.length(card.mpp)} per "
        "pixel, of these stains, scanners or sensors. Of others they are untested."
    )
    yield "- Fine structure is invented where embeddings do not say it: measure nothing in it."
    yield ""
    yield "## Licence"
    yield ""
    yield (
        f"As stated at the export: {card.licence}. The licences of the encoder and of the data may "
        "bind what is made with these models too."
    )
