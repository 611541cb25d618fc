"""The names of the stages and a line about each: what a command can be checked against, and shown,
before anything large is imported. The table has what they do."""

import dataclasses
from typing import Any

from ssldiff_jax.core import schema


@dataclasses.dataclass(frozen=True)
class Row:
    """What a stage does; whether it reads what others of its run wrote; whether it is a tool, which
    runs when it is named; whether its work is done by processes of its own, to which this one
    leaves the accelerators."""

    about: str
    reads: bool = True
    tool: bool = False
    apart: bool = False


# Apart from the table, whose import takes jax along.
ROWS = {
    "plan": Row(
        "say what the other steps will count, store, compute and refuse; before all others",
        reads=False,
        tool=True,
    ),
    "patches": Row(
        "cut slides into records (or read a list of patches), choose held-out regions", reads=False
    ),
    "encoder": Row("train the self-supervised encoder of patches"),
    "embeddings": Row("embed every training crop: one vector each, or tokens"),
    "autoencoder": Row("train the autoencoder of patches"),
    "latents": Row("encode the same crops as latents"),
    "denoiser": Row("train the conditioned UNet"),
    "distill": Row("train a student of it that needs few steps; nothing unless asked for"),
    "sample": Row("generate large images of held-out regions, and single patches"),
    "judge": Row("train the judge, an encoder that the generator never sees"),
    "evaluate": Row("evaluate generated images: results.json, results.csv"),
    "grids": Row("embed grids of neighbouring patches, the data of the prior"),
    "prior": Row("train the transformer that samples grids of embeddings"),
    "tokens": Row(
        "train what samples the tokens of a cell from its embedding; nothing with one a cell"
    ),
    "imagine": Row("generate images from the prior, compare them with their conditions"),
    "report": Row("write index.html with real and generated images"),
    "generate": Row("generate one large image of any size", tool=True),
    "variations": Row("regenerate a real patch or region several times", tool=True),
    "sweep": Row(
        "generate held-out regions with several sampler settings, with cost and figures", tool=True
    ),
    "watch": Row("evaluate every checkpoint while the denoiser trains", tool=True),
    "compare": Row("evaluate one folder of images against another", reads=False, tool=True),
    "study": Row("test whether generated patches improve classifiers", tool=True),
    "export": Row("write the models as safetensors under their published names", tool=True),
    "features": Row(
        "embed whole slides, drawn ones too: HDF5 files as TRIDENT and CLAM have them", tool=True
    ),
    "patch_images": Row("write the records as PNG files in a folder for each split", tool=True),
    "verify": Row("read all stored data again, name damaged files", tool=True),
    "compile": Row(
        "compile for TPUs or GPUs elsewhere: memory, collectives, roofline", reads=False, tool=True
    ),
    "bench": Row(
        "measure what models and large images cost on this machine",
        reads=False,
        tool=True,
        apart=True,
    ),
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


def lines() -> list[str]:
    """Steps and tools with a line about each."""
    steps = [_line(name) for name, row in ROWS.items() if not row.tool]
    tools = [_line(name) for name, row in ROWS.items() if row.tool]
    return ["all, or some of these, in this order:", *steps,
            "tools, which run only when named:", *tools]  # fmt: skip


def _line(name: str) -> str:
    return f"  {name:<12} {ROWS[name].about}"


def asks_for(values: dict[str, Any], name: str) -> bool:
    """Whether a stage that is no tool is among those of a config."""
    return bool({"all", name} & set(split(values["stages"])))


def is_apart(values: dict[str, Any]) -> bool:
    """Whether a config asks for a stage whose processes shall have the accelerators.

    Raises ConfigError where it asks for others beside it, which would hold them.
    """
    names = split(values["stages"])
    apart = [name for name in names if name in ROWS and ROWS[name].apart]
    if apart and len(names) > 1:
        raise schema.ConfigError(
            f"config.stages={apart[0]} must stand alone, since it needs all of the devices' "
            f"memory, got {values['stages']}"
        )
    distributed = values.get("runtime", {}).get("distributed", "off")
    if apart and distributed != "off":
        raise schema.ConfigError(
            f"config.stages={apart[0]} measures one host and must come with "
            f"config.runtime.distributed=off, got {distributed}"
        )
    return bool(apart)


def reads_alone(values: dict[str, Any]) -> bool:
    """Whether a config asks for nothing that can begin a run in a new work directory."""
    names = split(values["stages"])
    return names != ["all"] and all(ROWS[name].reads for name in names)
