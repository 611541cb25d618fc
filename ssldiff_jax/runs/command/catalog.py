"""The names of the stages and a line about each: what a command can be checked against, and shown,
before anything large is imported. The table has what they do."""

import dataclasses
from typing import Any

from ssldiff_jax.core import schema


@dataclasses.dataclass(frozen=True)
class Row:
    """What a stage does; whether it reads what others of its run wrote; whether it is a tool, which
    runs when it is named."""

    about: str
    reads: bool = True
    tool: bool = False


ROWS = {
    "patches": Row("slides, or patches already cut, to records and held-out regions", reads=False),
    "encoder": Row("train the encoder of patches"),
    "embeddings": Row("one vector for each training crop"),
    "autoencoder": Row("train the autoencoder of patches"),
    "latents": Row("latents of the same crops"),
    "denoiser": Row("train the conditioned UNet"),
    "sample": Row("large images of held-out regions, patches drawn alone"),
    "judge": Row("train an encoder that the generator never sees"),
    "evaluate": Row("figures of what was drawn: results.json, results.csv"),
    "grids": Row("grids of neighbours' embeddings"),
    "prior": Row("train the transformer that draws grids"),
    "imagine": Row("images of the prior's grids, and whether they show what was asked for"),
    "report": Row("index.html with real and drawn images"),
    "generate": Row("one large image of any size", tool=True),
    "variations": Row("a real patch or region drawn again", tool=True),
    "sweep": Row("held-out regions drawn in many ways, with cost and figures", tool=True),
    "watch": Row("figures of every checkpoint while the denoiser trains", tool=True),
    "compare": Row("the same figures of two folders of images", reads=False, tool=True),
    "study": Row("whether drawn patches help classifiers", tool=True),
    "export": Row("the models as safetensors, under the names they are published with", tool=True),
    "verify": Row("read all that is stored, name what is damaged", tool=True),
    "compile": Row("what compilers say of devices that are not here", reads=False, tool=True),
    "bench": Row("what models and large images cost on this machine", reads=False, tool=True),
}
"""In the order of the table."""


NO_SLIDES = (
    "config.data.slides must name slides or patches, got ''; say --config.data.slides="
    "'/data/*.svs', or =demo for the slide of the demo"
)


def require_known(names: list[str], what: str) -> None:
    """Raises ConfigError for a name that is no stage; "all" alone is none either, but may stand."""
    for name in names if names != ["all"] else []:
        if name not in ROWS:
            hint = schema.nearest_path(name, dict.fromkeys(ROWS))
            raise schema.ConfigError(f"config.{what}: {name!r} is no stage{hint}")


def split(text: str) -> list[str]:
    """Names from a comma-separated list."""
    return [name.strip() for name in text.split(",") if name.strip()]


def are_tools(names: list[str]) -> bool:
    """Whether all of them are: what they are told is not the run's own config."""
    return all(name in ROWS and ROWS[name].tool for name in names)


def lines() -> list[str]:
    """Steps and tools with a line about each."""
    text = lambda tool: [f"  {n:<12} {r.about}" for n, r in ROWS.items() if r.tool == tool]
    return ["all, or some of these, in this order:", *text(False),
            "tools, which run when they are named:", *text(True)]  # fmt: skip


def asks_for(values: dict[str, Any], name: str) -> bool:
    """Whether a stage that is no tool is among those of a config."""
    return bool({"all", name} & set(split(values["stages"])))


def reads_alone(values: dict[str, Any]) -> bool:
    """Whether a config asks for nothing that can begin a run in a new work directory."""
    names = split(values["stages"])
    return names != ["all"] and all(ROWS[name].reads for name in names)
