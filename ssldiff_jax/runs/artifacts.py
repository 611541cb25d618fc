"""Trained parts and their data, read back from a work directory."""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np

from ssldiff_jax.autoencoder import autoencoder
from ssldiff_jax.core import arrays, digests
from ssldiff_jax.data import crops, patch_list, shuffle
from ssldiff_jax.data import records as records_lib
from ssldiff_jax.data.precomputed import files as features
from ssldiff_jax.diffusion import conditioning
from ssldiff_jax.encoders import encoder
from ssldiff_jax.formats import atomic
from ssldiff_jax.prior import conditions
from ssldiff_jax.runs import stage
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.runs.workdir import provenance
from ssldiff_jax.slides import pyramid
from ssldiff_jax.train import checkpoint, loop

QUARANTINE = "quarantine.jsonl"
"""In the folder of the stage `patches`: files that could not be used, and why."""

_OPEN_FEATURES = 32


def training_run(context: stage.Context, name: str) -> loop.Run:
    """The Run of a stage that trains."""
    config = context.config
    return loop.Run(
        name,
        context.folder(name),
        context.checkpoints(name),
        context.mesh,
        config.mesh.rules,
        config.seed,
        provenance.past(context, name),
    )


def archive_folder(context: stage.Context) -> pathlib.Path:
    """Where entries of slides lie."""
    named = context.config.data.archive
    return pathlib.Path(named).expanduser() if named else context.workdir / "archive"


def records(context: stage.Context, split: str) -> records_lib.RecordSource:
    """Records of a split."""
    return records_lib.RecordSource(context.folder("patches") / "records", split)


def crop_table(config: run_config.RunConfig, source: records_lib.RecordSource) -> crops.CropTable:
    """The crops that embeddings and latents are cached for."""
    return crops.CropTable(
        len(source), config.data.records.record_px, config.data.crops, config.seed
    )


def patches_at(
    context: stage.Context, split: str, count: int, side: int, shift: int = 0, *, start: int = 0
) -> np.ndarray:
    """Squares of `side` px at (shift, shift) of the first `count` records in a fixed random order,
    without the first `start`: `[0 S S 3]` where there are no more."""
    source = records(context, split)
    order = shuffle.first(count, len(source), seed=0)[start:]
    at = np.s_[shift : shift + side, shift : shift + side]
    patches = [source[int(i)][at] for i in order]
    return np.stack(patches) if patches else np.zeros((0, side, side, 3), np.uint8)


@dataclasses.dataclass(frozen=True)
class Reference:
    """Held-out cells to generate from: a region of a slide, or a page of patches side by side.

    `grid` are their embeddings, where anything gave them.
    """

    image: arrays.ImageUint8
    kind: Literal["region", "page"]
    grid: arrays.EmbeddingGrid | None


def references(
    context: stage.Context,
    embed: Callable[[arrays.ImageUint8], arrays.EmbeddingGrid] | None = None,
) -> list[Reference]:
    """What images are generated from and compared with; `embed` makes the grids of those whose
    embeddings were not computed elsewhere."""
    folder, all_references = context.folder("patches"), []
    for i, entry in enumerate(atomic.read_json(folder / "regions.json")):
        image = pyramid.read_image(folder / f"region_{i}.png")
        if context.config.embeddings.source:
            grid = np.load(context.folder("embeddings") / f"region_{i}.npy", allow_pickle=False)
        else:
            grid = embed(image) if embed else None
        all_references.append(Reference(image, entry["kind"], grid))
    return all_references


def with_references(context: stage.Context) -> stage.Context:
    """The run itself, or that of its models where it has no patches of its own."""
    own = (context.folder("patches") / "done.json").exists()
    return context if own else context.of_models


def are_pages(context: stage.Context) -> bool:
    """Whether records are patches of a list, which have no neighbours."""
    entries = atomic.read_json(context.folder("patches") / "regions.json")
    return all(reference["kind"] == "page" for reference in entries)


def imported_embeddings(context: stage.Context) -> Callable[[int], features.Features]:
    """From the number of a slide (any, for a list of patches) to its embeddings.

    Raises WeightsError for a slide that has none.
    """
    section = context.config.embeddings
    if patch_list.is_list(context.config.data.slides) and not section.path.is_dir():
        whole = section.of_list()
        return lambda number: whole
    names = atomic.read_json(context.folder("patches") / "done.json")["facts"]["slides"]

    @functools.lru_cache(_OPEN_FEATURES)
    def of_slide(number: int) -> features.Features:
        values = section.of_slide(names[str(number)])
        if values is None:
            raise features.WeightsError(f"no file of embeddings for {names[str(number)]}")
        return values

    return of_slide


def load_encoder(context: stage.Context, name: str = "encoder") -> encoder.Encoder:
    """The encoder (or the judge) with its averaged weights and measured origin."""
    params = checkpoint.load_params(context.checkpoints(name))["encoder"]
    origin = atomic.read_json(context.folder(name) / "encoder.json")["origin"]
    return encoder.Encoder(getattr(context.config, name).architecture, params, origin)


def encoder_digest(model: encoder.Encoder) -> str:
    """A 12-digit hash of all that decides an encoder's embeddings."""
    return digests.of_params({"params": model.params, "origin": model.origin})


def load_autoencoder_params(context: stage.Context) -> Any:
    """The autoencoder's averaged weights."""
    return checkpoint.load_params(context.checkpoints("autoencoder"))["autoencoder"]


def load_autoencoder(context: stage.Context) -> autoencoder.TrainedAutoencoder:
    """The autoencoder with its averaged weights and measured scaling."""
    params = load_autoencoder_params(context)
    scaling = load_scaling(context.folder("latents"))
    return autoencoder.TrainedAutoencoder(context.config.autoencoder.model, params, scaling)


def load_scaling(folder: pathlib.Path) -> autoencoder.LatentScaling:
    """Latent scale and shift, as the latents stage measured them."""
    facts = json.loads((folder / "manifest.json").read_text())["facts"]
    return autoencoder.LatentScaling(tuple(facts["latent_scale"]), tuple(facts["latent_shift"]))


def condition_spec(values: Mapping[str, Any]) -> conditions.ConditionSpec:
    """The conditions that a prior knows, as the stage `grids` wrote it."""
    names = {key: tuple(values[key]) for key in ("labels", "numbers")}
    return conditions.ConditionSpec(**(dict(values) | names))


def load_denoiser(
    context: stage.Context, step: int | None = None
) -> tuple[conditioning.Denoiser, Any]:
    """The denoiser and its averaged weights, of a step or the latest."""
    params = checkpoint.load_params(context.checkpoints("denoiser"), step=step)
    dim = params["conditioner"]["token"]["kernel"].shape[0]
    return conditioning.Denoiser(
        context.config.denoiser.model(dim, context.config.num_cells)
    ), params
