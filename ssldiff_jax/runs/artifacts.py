"""What the stages of a run made, read back from their folders."""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jaxtyping import UInt

from ssldiff_jax.autoencoder import autoencoder as autoencoder_lib
from ssldiff_jax.core import arrays, bands, digests, pixel_units, rng
from ssldiff_jax.data import config as data_config
from ssldiff_jax.data import crops, csv_cells, mosaic, plan, shuffle, store
from ssldiff_jax.data import records as records_lib
from ssldiff_jax.data.precomputed import files as features
from ssldiff_jax.diffusion import conditioning
from ssldiff_jax.encoders import encoder as encoder_lib
from ssldiff_jax.formats import atomic
from ssldiff_jax.prior import conditions
from ssldiff_jax.runs import held_out, patch_samples
from ssldiff_jax.runs import region_labels as region_labels_lib
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.runs.workdir import folders as folders_lib

WHITENING = "whitening.npy"
"""In the folders of the stages `encoder` and `judge`, where embeddings are made white."""

QUARANTINE = "quarantine.jsonl"
"""In the folder of the stage `patches`: files that could not be used, and why."""

Reference = held_out.Reference

# Each is an open file, and a system allows a process a thousand or so.
_OPEN_FEATURES = 32


@dataclasses.dataclass(frozen=True)
class Artifacts:
    """Trained parts of a run and their data.

    With `config.models` the models are another run's; records and references are this one's.
    """

    config: run_config.RunConfig
    folders: folders_lib.Folders

    @property
    def of_models(self) -> "Artifacts":
        """Those of the run that made the models: its training data are theirs.

        Raises WorkdirError where there is no such run, and where its patches are of another scale.
        """
        folders = self.folders
        if folders.models is None:
            return self
        config = folders.config_of_models()
        if config.data.levels != self.config.data.levels:
            raise folders_lib.WorkdirError(
                f"config.data.levels must be those of the models in {folders.models}, "
                f"{config.data.levels}, got {self.config.data.levels}"
            )
        config = config.at_level(self.config.level)
        models_mpp, mpp = config.data.patch_mpp, self.config.data.patch_mpp
        if mpp != models_mpp:
            raise folders_lib.WorkdirError(
                f"{pixel_units.patch_key(models_mpp)} must be that of the models in "
                f"{folders.models}, {pixel_units.per_pixel(models_mpp)}, got "
                f"{pixel_units.per_pixel(mpp)}"
            )
        return Artifacts(config, folders_lib.Folders.of(config, folders.models))

    @property
    def with_references(self) -> "Artifacts":
        """These, or, of a run without patches of its own, those of the run that made the models."""
        return self if self.folders.is_done("patches") else self.of_models

    def require_references(self, instead: str) -> None:
        """Raises WorkdirError where there are no patches to generate from: `instead` names the key
        of something else."""
        folders = self.with_references.folders
        if not folders.is_done("patches"):
            raise folders_lib.WorkdirError(
                f"config.{instead} must name what to generate from where no patches were cut, got "
                f"'' and no {folders.of_stage('patches')}"
            )

    def records(self, split: str) -> records_lib.RecordSource:
        """Records of a split, at the first level where its name says no other."""
        return records_lib.RecordSource(self.folders.of_stage("patches") / "records", split)

    def has_split(self, split: plan.Side) -> bool:
        """Whether records were cut for a split."""
        manifest = self.folders.of_stage("patches") / "records" / "manifest.json"
        return atomic.read_json(manifest)["splits"].get(split, {"count": 0})["count"] > 0

    def at_level(self, level: float) -> "Artifacts":
        """The same, where what is generated and evaluated is of another level."""
        return dataclasses.replace(self, config=self.config.at_level(level))

    def patches(self, split: str) -> patch_samples.RecordPatches:
        """Patches in the records of a split, at the level of what is generated."""
        data, records = self.config.data, self.records(plan.split_at(split, self.config.level))
        return patch_samples.RecordPatches(
            records, split, data.crops.patch_px, data.records.record_px
        )

    @property
    def grid_side(self) -> int:
        """Cells on the side of a prior's grid: one where patches have no neighbours."""
        return 1 if self.are_pages else self.config.prior.grids.side

    def regions(self, split: str) -> mosaic.RegionTable:
        """Regions of a split that grids are cut from; held-out parts of slides may hold no more
        than a grid."""
        config, section, is_train = self.config, self.config.prior.grids, split == "train"
        side = self.grid_side
        return mosaic.RegionTable(
            mosaic.Mosaic(self.records(split), config.data.records.record_px),
            section.count if is_train else section.count_test,
            config.data.crops.patch_px,
            side,
            section.max_cells if is_train and side > 1 else side,
            config.data.crops.dihedral and is_train,
            # Streams by name: sums of a seed and a number gave two of them the same numbers.
            rng.seed_of(config.seed, f"grids/{split}"),
        )

    def region_labels(self) -> region_labels_lib.RegionLabels:
        """The conditions of the regions of both splits."""
        # Numbers are standardised by what training saw: a held-out case must not move them.
        training = self.records("train").slides[:, 0].tolist()
        return region_labels_lib.RegionLabels.read(
            self.config.prior.conditions, self.config.data, self.slide_cases, training,
            lambda: self.slide_names,
        )  # fmt: skip

    def references(
        self, embed: Callable[[arrays.Pixels], arrays.EmbeddingGrid] | None = None
    ) -> list[Reference]:
        """What images are generated from and compared with, at the level of what is generated;
        `embed` makes the grids of those whose embeddings were not computed elsewhere.

        Raises WorkdirError where a region holds no cell of the level, or was cut without it.
        """
        return held_out.read(self.config, self.folders, embed)

    @property
    def are_pages(self) -> bool:
        """Whether records are patches of a list, which have no neighbours."""
        regions = atomic.read_json(self.folders.of_stage("patches") / "regions.json")
        return all(reference["kind"] == "page" for reference in regions)

    @property
    def slide_names(self) -> Mapping[int, str]:
        """File names by the number of a slide, or of a patch in a list."""
        # Not at the top, as Orbax below: a machine that only computes need not have TFDS.
        from ssldiff_jax.data import patch_list

        if self.are_pages:
            data = self.config.data
            patches = patch_list.open_list(data.slides, data.reading)
            return {number: patches.name(number) for number in range(len(patches))}
        done = atomic.read_json(self.folders.of_stage("patches") / "done.json")
        return {int(number): name for number, name in done["facts"]["slides"].items()}

    @property
    def slide_cases(self) -> Mapping[int, str]:
        """Cases by the number of a slide, or of a patch in a list."""
        table = self.folders.of_stage("patches") / "slides.csv"
        if table.exists():
            with table.open(newline="", encoding="utf-8") as lines:
                return {int(row["number"]): row["case"] for row in csv_cells.written_rows(lines)}
        regex = self.config.data.holdout.case_regex
        return {number: plan.case_of(name, regex) for number, name in self.slide_names.items()}

    @property
    def embedding_dim(self) -> int:
        """Length of the embeddings that patches have."""
        return store.Store(self.folders.of_stage("embeddings")).facts["dim"]

    @property
    def grid_facts(self) -> Mapping[str, Any]:
        """What the stage `grids` wrote of its grids: `side`, `dim`, `spec`, `scales`."""
        return atomic.read_json(self.folders.of_stage("grids") / "spec.json")

    def imported_embeddings(self) -> Callable[[int], features.Features]:
        """From the number of a slide (any, for a list of patches) to its embeddings.

        Raises WeightsError for a slide that has none.
        """
        from ssldiff_jax.data import patch_list

        section = self.config.embeddings
        if patch_list.is_list(self.config.data.slides) and not section.path.is_dir():
            # Opened once; the number of a patch is its row, not its file.
            whole = section.of_list()
            return lambda number: whole
        done = atomic.read_json(self.folders.of_stage("patches") / "done.json")
        names = done["facts"]["slides"]

        @functools.lru_cache(_OPEN_FEATURES)
        def of_slide(number: int) -> features.Features:
            rows = section.of_slide(names[str(number)])
            if rows is None:
                raise features.WeightsError(f"no file of embeddings for {names[str(number)]}")
            return rows

        return of_slide

    def encoder(self, name: str = "encoder") -> encoder_lib.Encoder:
        """The encoder (or the judge) with its averaged weights and measured origin."""
        from ssldiff_jax.train import checkpoint

        params = checkpoint.load_params(self.folders.checkpoints(name))["encoder"]
        facts = atomic.read_json(self.folders.of_stage(name) / "encoder.json")
        white = self.folders.of_stage(name) / WHITENING
        is_white = getattr(self.config, name).model.origin == "white"
        return encoder_lib.Encoder(
            getattr(self.config, name).architecture,
            params,
            facts["origin"],
            token_origin=facts.get("token_origin"),
            # A pickle could run code; work directories are handed on.
            whitening=np.load(white, allow_pickle=False) if is_white else None,
            view=self.config.data.reading.multiband.view_of(name),
        )

    def autoencoder_params(self) -> Any:
        """The autoencoder's averaged weights."""
        from ssldiff_jax.train import checkpoint

        return checkpoint.load_params(self.folders.checkpoints("autoencoder"))["autoencoder"]

    def autoencoder(self) -> autoencoder_lib.TrainedAutoencoder:
        """The autoencoder with its averaged weights and measured scaling."""
        params, model = self.autoencoder_params(), self.config.autoencoder.model
        return autoencoder_lib.TrainedAutoencoder(model, params, self.scaling())

    def scaling(self) -> autoencoder_lib.LatentScaling:
        """Latent scale and shift, as the latents stage measured them."""
        path = self.folders.of_stage("latents") / "manifest.json"
        facts = json.loads(path.read_text())["facts"]
        return autoencoder_lib.LatentScaling(
            tuple(facts["latent_scale"]), tuple(facts["latent_shift"])
        )

    def denoiser(self, step: int | None = None) -> tuple[conditioning.Denoiser, Any]:
        """The denoiser and its averaged weights, of a step or the latest."""
        from ssldiff_jax.train import checkpoint

        params = checkpoint.load_params(self.folders.checkpoints("denoiser"), step=step)
        # The weights know: embeddings computed elsewhere are of any length.
        dim = conditioning.embedding_dim_of(params)
        model = self.config.denoiser_sizes(dim)
        return conditioning.Denoiser(model), params

    def student(self) -> tuple[conditioning.Denoiser, Any]:
        """The student of the denoiser and its averaged weights."""
        from ssldiff_jax.train import checkpoint

        params = checkpoint.load_params(self.folders.checkpoints("distill"))
        dim = conditioning.embedding_dim_of(params)
        return conditioning.Denoiser(self.config.denoiser_sizes(dim).of_student), params


def archive_folder(data: data_config.DataConfig, workdir: pathlib.Path) -> pathlib.Path:
    """Where entries of slides lie."""
    return pathlib.Path(data.archive).expanduser() if data.archive else workdir / "archive"


def crop_table(
    config: run_config.RunConfig, source: records_lib.RecordSource, number: int = 0
) -> crops.CropTable:
    """The crops of a level, from 0, that embeddings and latents are cached for."""
    return crops.CropTable(
        len(source),
        config.data.records.record_px,
        config.data.crops.of_level(number, len(config.data.levels)),
        rng.seed_of(config.seed, "crops", number),
    )


def patches_at(
    source: records_lib.RecordSource, count: int, side: int, shift: int = 0, *, start: int = 0
) -> UInt[np.ndarray, "N S S bands"]:
    """Squares of `side` px at (shift, shift) of the first `count` records in a fixed random order,
    without the first `start`: `[0 S S bands]` where there are no more."""
    # Not the run's seed: runs that differ in it are measured on the same patches.
    order = shuffle.first(count, len(source), seed=0)[start:]
    at = np.s_[shift : shift + side, shift : shift + side]
    squares = [source[int(i)][at] for i in order]
    none = np.zeros((0, side, side, source.num_bands), source.dtype)
    return np.stack(squares) if squares else none


def encoder_digest(model: encoder_lib.Encoder) -> str:
    """A 12-digit hash of all that decides an encoder's embeddings, or tokens."""
    measured = {"params": model.params, "origin": model.origin}
    if model.whitening is not None:
        measured["whitening"] = model.whitening
    if model.tokens_per_side > 1:
        measured["token_origin"] = model.token_origin
    if model.view != bands.RGB:
        measured["view"] = np.array(model.view.bands)
    return digests.of_params(measured)


def condition_spec(values: Mapping[str, Any]) -> conditions.ConditionSpec:
    """The conditions that a prior knows, as the stage `grids` wrote it."""
    # JSON has lists; what jit takes as constant must be hashable.
    names = {key: tuple(values[key]) for key in ("labels", "numbers")}
    areas = tuple(map(tuple, values.get("areas", ())))
    return conditions.ConditionSpec(**(dict(values) | names | {"areas": areas}))
