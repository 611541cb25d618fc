"""Published transformers of PixArt's blocks, PixCell's: what a file says of its sizes, whether a
config asks for the same, and the parameters."""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ssldiff_jax.diffusion import cells, conditioning, dit, positions, process
from ssldiff_jax.formats import tensors as reader
from ssldiff_jax.weights import lora as lora_lib
from ssldiff_jax.weights.tables import pixart

# Of sines of −1…1; files of 16 bits round them.
_SINES = {2: 1e-2, 4: 1e-4, 8: 1e-4}
_SCHEDULES = {"linear": "linear_betas", "scaled_linear": "scaled_linear"}
_PREDICTIONS = {"epsilon": "eps", "v_prediction": "v", "sample": "x0"}
_PATCH_IN = f"{pixart.PATCH_IN}.weight"
_MAP_IN = "cond_pos_embed.proj.weight"
# Of latents on the side, above which diffusers stretches positions where nothing is said.
_BASE_SIDE = 64


@dataclasses.dataclass(frozen=True)
class PublishedTransformer:
    """A transformer of a file.

    Attributes:
        path: the file or folder, for errors.
        tensors: by the names of diffusers.
        about: what its config.json says; nothing of a file without one.
    """

    path: str
    tensors: Mapping[str, np.ndarray]
    about: Mapping[str, Any]

    @classmethod
    def of(
        cls, path: str, tensors: Mapping[str, np.ndarray], about: Mapping[str, Any]
    ) -> "PublishedTransformer":
        """By whichever names a file has.

        Raises WeightsError where it lacks what says its sizes.
        """
        found = cls(path, pixart.in_diffusers_names(tensors, path), about)
        for name, ndim in ((pixart.NULL, 2), (_PATCH_IN, 4)):
            shape = found.tensors.get(name, np.zeros(())).shape
            if len(shape) != ndim:
                raise reader.WeightsError(
                    f"{path}: expected {name} of {ndim} dimensions, got {shape or 'none'}"
                )
        return found

    @property
    def embedding_dim(self) -> int:
        """Length of the embeddings that it was trained on."""
        return self.tensors[pixart.NULL].shape[-1]

    @property
    def num_tokens(self) -> int:
        """Embeddings that condition a window."""
        return len(self.tensors[pixart.NULL])

    @property
    def depth(self) -> int:
        """Blocks."""
        return _depth(self.tensors)

    def require(self, config: conditioning.DenoiserConfig) -> None:
        """Raises WeightsError for a config that asks for another model, a line with all that
        differs."""
        wrong = [
            f"{key}={ours} (must be {theirs})"
            for key, ours, theirs in self._compared(config)
            if theirs is not None and ours != theirs
        ]
        if wrong:
            raise reader.WeightsError(
                f"{self.path} is another model than the config asks for, got {', '.join(wrong)}"
            )

    def _compared(self, config: conditioning.DenoiserConfig) -> Iterator[tuple[str, Any, Any]]:
        """Keys of a config, their values, and those of the file; None where it says nothing."""
        sizes, about = config.dit, self.about
        yield "config.denoiser.network", "unet" if sizes is None else "dit", "dit"
        if sizes is None:
            return
        width, channels, patch, _ = self.tensors[_PATCH_IN].shape
        under = "config.denoiser.dit."
        yield f"{under}shape.width", sizes.shape.width, width
        yield f"{under}shape.depth", sizes.shape.depth, self.depth
        yield f"{under}shape.num_heads", sizes.shape.num_heads, about.get("num_attention_heads")
        yield f"{under}latent_channels", sizes.latent_channels, channels
        yield f"{under}patch", sizes.patch, patch
        yield f"{under}mlp", sizes.mlp, "gelu"
        yield f"{under}conditioning", sizes.conditioning, "cross_attention"
        side = about.get("sample_size")
        base = None if side is None else side // patch
        yield f"{under}positions.base", sizes.positions.base, base
        yield f"{under}positions.scale", sizes.positions.scale, _stretch(about)
        yield "config.denoiser.embedding_length", config.embedding_length, "own"
        tokens = config.num_cells * config.tokens_per_side**2
        yield "tokens of a window (config.embeddings.tokens_per_side²)", tokens, self.num_tokens
        yield "dimension of embeddings", config.embedding_dim, self.embedding_dim

    def load(
        self, config: conditioning.DenoiserConfig, like: Any, adapters: "Adapters"
    ) -> dict[str, Any]:
        """Parameters of the transformer and its conditioner, shaped `like` these, with a LoRA, and
        of a ControlNet where there is one.

        The config must be of the model (`require`). Raises WeightsError for buffers of positions
        that are others, for names and shapes that do not fit, and for a LoRA of another base.
        """
        self._require_positions(config)
        tensors = {name: x for name, x in self.tensors.items() if name not in pixart.POSITIONS}
        tensors = lora_lib.merged(tensors, adapters.lora, self.path)
        tables = {
            "dit": pixart.transformer_names(config.dit),
            "conditioner": pixart.conditioner_names(),
        }
        params = {
            name: table.load(tensors, like[name], self.path) for name, table in tables.items()
        }
        if adapters.control is not None:
            null = params["conditioner"]["null"]
            params["control"] = adapters.control.load(config.dit, like["control"], null)
        return params

    def _require_positions(self, config: conditioning.DenoiserConfig) -> None:
        """Raises WeightsError for a stored buffer that is not what is computed here."""
        where, width = config.dit.positions, config.dit.shape.width
        of_patches, of_tokens, _ = pixart.POSITIONS
        if of_patches in self.tensors:
            stored = self.tensors[of_patches]
            side = math.isqrt(stored[..., 0].size)
            # Made for windows of one size: as many positions as its patches.
            ours = positions.of_patches(where, side, side, width)
            _require_sines(f"{self.path}: {of_patches}", stored, ours)
        if of_tokens in self.tensors:
            side = where.base or 1
            place = cells.PatchTokens(config.tokens_per_side).place
            ours = positions.of_tokens(where, place, side, side, self.embedding_dim)
            _require_sines(f"{self.path}: {of_tokens}", self.tensors[of_tokens], ours)


@dataclasses.dataclass(frozen=True)
class PublishedControl:
    """A ControlNet of a file, beside a transformer."""

    path: str
    tensors: Mapping[str, np.ndarray]

    @property
    def depth(self) -> int:
        """Blocks that it has, and of the transformer leads."""
        return _depth(self.tensors)

    def load(self, config: dit.DiTConfig, like: Any, null: np.ndarray) -> dict[str, Any]:
        """Its parameters, shaped `like` these; `null` is the transformer's null embedding, which it
        is shown too. The transformer must be its own (`require`).

        Raises WeightsError for names and shapes that do not fit.
        """
        tensors = {name: x for name, x in self.tensors.items() if name not in pixart.POSITIONS}
        params = pixart.control_names(config, self.depth).load(tensors, like, self.path)
        return params | {"conditioner": params["conditioner"] | {"null": null}}

    def require(self, config: dit.DiTConfig) -> None:
        """Raises WeightsError for a ControlNet of another transformer."""
        patches = (config.latent_channels, config.patch, config.patch)
        shape = self.tensors.get(_MAP_IN, np.zeros(())).shape
        if shape != (config.shape.width, *patches) or not 1 <= self.depth <= config.shape.depth:
            raise reader.WeightsError(
                f"{self.path} must be a ControlNet of the transformer, with {_MAP_IN} of "
                f"{(config.shape.width, *patches)} and at most {config.shape.depth} blocks, got "
                f"{shape or 'none'} and {self.depth}"
            )


@dataclasses.dataclass(frozen=True)
class Adapters:
    """What is put into a published transformer or beside it."""

    lora: lora_lib.LoraConfig = lora_lib.NONE
    control: PublishedControl | None = None


def require_process(path: str, about: Mapping[str, Any], config: process.Process) -> None:
    """Raises WeightsError where a scheduler_config.json says that a model was trained with another
    schedule, or predicts something else, than a config has."""
    schedule = config.schedule
    wrong = [
        f"config.denoiser.{key}={ours!r} (must be {theirs!r})"
        for key, ours, theirs in (
            ("schedule.name", schedule.name, _SCHEDULES.get(about.get("beta_schedule"))),
            ("schedule.num_timesteps", schedule.num_timesteps, about.get("num_train_timesteps")),
            ("schedule.beta_start", schedule.beta_start, about.get("beta_start")),
            ("schedule.beta_end", schedule.beta_end, about.get("beta_end")),
            ("loss.prediction", config.prediction, _PREDICTIONS.get(about.get("prediction_type"))),
        )
        if theirs is not None and ours != theirs
    ]
    if wrong:
        raise reader.WeightsError(f"{path} was trained otherwise, got {', '.join(wrong)}")


def _require_sines(what: str, stored: np.ndarray, ours: np.ndarray) -> None:
    flat = stored.reshape(-1, stored.shape[-1]).astype(np.float32)
    if flat.shape != ours.reshape(-1, ours.shape[-1]).shape:
        raise reader.WeightsError(
            f"{what} must hold {ours.reshape(-1, ours.shape[-1]).shape}, got {stored.shape}"
        )
    error = float(np.abs(flat - ours.reshape(flat.shape)).max())
    # Not ≤: a NaN is no sine.
    if not error < _SINES.get(stored.dtype.itemsize, 0):
        raise reader.WeightsError(
            f"{what} must be the sines of config.denoiser.dit.positions, got a difference of "
            f"{error:.3g}"
        )


def _stretch(about: Mapping[str, Any]) -> float | None:
    """What positions are divided by."""
    if "sample_size" not in about:
        return None
    scale = about.get("interpolation_scale")
    return float(max(about["sample_size"] // _BASE_SIDE, 1) if scale is None else scale)


def _depth(tensors: Mapping[str, np.ndarray]) -> int:
    """Blocks: one more than the highest number of one."""
    parts = (name.split(".") for name in tensors if name.startswith("transformer_blocks."))
    numbers = [int(part[1]) for part in parts if len(part) > 1 and part[1].isdigit()]
    return max(numbers, default=-1) + 1
