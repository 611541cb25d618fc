"""Models in a folder of their own: safetensors that say what they are, and how they are read.

`denoiser.safetensors` is enough to generate from embeddings. Beside it may lie
`student.safetensors`, which generates in few steps, `encoder.safetensors`, which embeds images,
`prior.safetensors`, which makes grids, and `tokens.safetensors`, which makes the tokens of their
cells.
"""

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from ssldiff_jax.core import digests, schema
from ssldiff_jax.diffusion import conditioning
from ssldiff_jax.encoders import encoder, known
from ssldiff_jax.formats import atomic, hub
from ssldiff_jax.formats import tensors as reader
from ssldiff_jax.generation import exported_priors, models
from ssldiff_jax.runs import artifacts
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.runs.workdir import stored_config
from ssldiff_jax.weights import names, published

FORMAT = 2
"""Raised where an older reader would misunderstand a file, or this one an older file: 1 had keys of
other names."""

DENOISER, STUDENT, ENCODER, PRIOR, TOKENS = (
    f"{name}.safetensors" for name in ("denoiser", "student", "encoder", "prior", "tokens")
)
CONFIG = "config.json"
"""Beside them: what their heads say, for who reads no safetensors."""
LIBRARY = "ssldiff_jax"
NOT_STATED = "not stated"
# Before the names of its tensors, so that no denoiser's are taken for them.
_UNDER_STUDENT = "student"
_KEY = LIBRARY


@dataclasses.dataclass(frozen=True)
class Card:
    """What the head of every exported file says.

    Attributes:
        config: of the run, whole; of files that it names, the names without their folders.
        mpp: microns per pixel of what the models generate.
        encoder: name, digest, dimension and licence of what made the embeddings.
        licence: of the models, as stated at their export.
        versions: of the code that trained them.
    """

    config: Mapping[str, Any]
    mpp: float
    encoder: Mapping[str, Any]
    licence: str
    versions: Mapping[str, str]

    @classmethod
    def of(
        cls, config: run_config.RunConfig, trained: models.Models, versions: Mapping[str, str]
    ) -> "Card":
        """The card of models that a run trained."""
        name = config.encoder.name
        licence = config.export.licence or NOT_STATED
        own, elsewhere = name == encoder.OWN, bool(config.embeddings.source)
        about = {
            "name": "embeddings computed elsewhere" if elsewhere else name,
            "dim": trained.denoiser.config.embedding_dim,
            # Of weights and origin: embeddings of the same weights from another origin are others.
            "digest": trained.encoder and _digest(trained.encoder, config),
            "licence": licence if own else known.ENCODERS[name].licence,
        }
        # Whoever computed them knows; the encoder that the config names was not used.
        if elsewhere:
            about["licence"] = NOT_STATED
        values = _without_folders(dataclasses.asdict(config))
        return cls(values, config.data.patch_mpp, about, licence, versions)

    @classmethod
    def read(cls, path: pathlib.Path) -> "Card | None":
        """The card of a file; None where it is no export.

        Raises WeightsError for an export of another format.
        """
        text = reader.metadata(path).get(_KEY)
        if text is None:
            return None
        values = json.loads(text)
        version = values.pop("format")
        if version != FORMAT:
            raise reader.WeightsError(
                f"{path}: expected an export of format {FORMAT}, got {version}; export its run "
                "again, or read it with the version of the code that wrote it"
            )
        return cls(**values)

    def plain(self) -> dict[str, Any]:
        """The card as JSON has it."""
        return {"library_name": LIBRARY, "format": FORMAT} | dataclasses.asdict(self)

    def head(self, **more: Any) -> dict[str, str]:
        """The card as a file's metadata, and what else its reader needs."""
        plain = {"format": FORMAT} | dataclasses.asdict(self)
        return {_KEY: json.dumps(plain)} | {key: json.dumps(value) for key, value in more.items()}


def write(folder: pathlib.Path, trained: models.Models, card: Card) -> list[pathlib.Path]:
    """Write models into `folder`; returns the files, each of which has the card.

    A published encoder that was used as it is stays where it is: the card names it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = schema.build(run_config.RunConfig, card.config)
    stage, scaling = trained.autoencoder, trained.autoencoder.scaling
    published.export(
        folder / DENOISER,
        *published.denoiser_parts(trained.denoiser.config, trained.params),
        (published.autoencoder_names({}, stage.config), stage.params),
        metadata=card.head(),
        latent_scale=scaling.latent_scale,
        latent_shift=scaling.latent_shift,
    )
    written = [folder / DENOISER]
    if trained.student is not None:
        params = trained.student.params
        published.export(
            folder / STUDENT,
            (names.own_names(params, _UNDER_STUDENT), params),
            metadata=card.head(student_of=digests.of_params(trained.params)),
        )
        written.append(folder / STUDENT)
    if trained.encoder is not None and config.encoder.train.num_steps:
        sizes, name = trained.encoder.architecture.vit, config.encoder.name
        family = "timm" if name == encoder.OWN else known.ENCODERS[name].names
        table = published.encoder_names(sizes, family)
        published.export(
            folder / ENCODER,
            (table, trained.encoder.params),
            metadata=card.head(),
            origin=trained.encoder.origin,
            **_measured_by(trained.encoder),
        )
        written.append(folder / ENCODER)
    if trained.prior is not None:
        exported_priors.write_prior(folder / PRIOR, trained.prior, card.head)
        written.append(folder / PRIOR)
    if trained.tokens is not None:
        exported_priors.write_tokens(folder / TOKENS, trained.tokens, card.head)
        written.append(folder / TOKENS)
    return written


def find(source: pathlib.Path) -> pathlib.Path | None:
    """The denoiser's file, where `source` is it or its folder; None for anything else."""
    path = source / DENOISER if source.is_dir() else source
    return path if Card.read(path) else None


def load(path: pathlib.Path) -> tuple[run_config.RunConfig, models.Models]:
    """The config and the models of `path`, an exported denoiser, with those beside it.

    Raises WeightsError for files that do not fit, or are of another run.
    """
    card = Card.read(path)
    _require_same(path.parent / CONFIG, card, path.name)
    # With defaults for keys that came after the export.
    config = schema.build(run_config.RunConfig, stored_config.complete(card.config))
    file = published.ModelFile.read(path)
    embeds = _encoder(path.parent, config, card)
    prior, tokens = (path.parent / name for name in (PRIOR, TOKENS))
    trained = models.Models.of_file(file, config, file)
    return config, dataclasses.replace(
        trained,
        student=_student(path.parent / STUDENT, trained),
        encoder=embeds,
        prior=exported_priors.read_prior(prior, config) if prior.exists() else None,
        tokens=(
            exported_priors.read_tokens(tokens, config, card.encoder["digest"])
            if tokens.exists()
            else None
        ),
    )


def _require_same(path: pathlib.Path, card: Card, name: str) -> None:
    """Refuse a config that was changed: it would say what is not so, since heads are read."""
    if not path.exists():
        return
    values = atomic.read_json(path)
    if not isinstance(values, Mapping) or values.get("library_name") != LIBRARY:
        return  # of another program
    ours, theirs = (
        schema.flatten(json.loads(json.dumps(plain))) for plain in (card.plain(), values)
    )
    if differ := [key for key, value in ours.items() if theirs.get(key) != value]:
        key = differ[0]
        raise reader.WeightsError(
            f"{path} must say what the head of {name} says, {key}={ours[key]!r}, got "
            f"{theirs.get(key)!r}"
        )


def _student(path: pathlib.Path, trained: models.Models) -> models.Network | None:
    """The student beside a denoiser, of that one and no other."""
    if not path.exists():
        return None
    of, teacher = reader.metadata(path).get("student_of"), digests.of_params(trained.params)
    if of is None or json.loads(of) != teacher:
        raise reader.WeightsError(
            f"{path} must be a student of the denoiser {teacher} beside it, got one of {of}"
        )
    sizes = trained.denoiser.config.of_student
    like = published.abstract_denoiser(sizes)
    params = names.own_names(like, _UNDER_STUDENT).load(reader.read(path), like, str(path))
    return models.Network(conditioning.Denoiser(sizes), params)


def _encoder(
    folder: pathlib.Path, config: run_config.RunConfig, card: Card
) -> encoder.Encoder | None:
    """The encoder beside a denoiser: its own, or the published one's file under its old name."""
    section = config.encoder
    if config.embeddings.source:
        return None
    path = exported_priors.beside(folder, ENCODER if section.train.num_steps else section.weights)
    if path is None:
        return None
    embeds = models.encoder_of(str(path), config)
    # Another encoder's vectors have the right length and mean something else.
    digest = _digest(embeds, config)
    if digest != card.encoder["digest"]:
        made = "embeddings" if config.embeddings.tokens_per_side == 1 else "tokens"
        raise reader.WeightsError(
            f"{path} must be the encoder {card.encoder['digest']} that made the {made}, got "
            f"{digest}"
        )
    return embeds


def _digest(embeds: encoder.Encoder, config: run_config.RunConfig) -> str:
    """Of all that decides what the denoiser is conditioned on."""
    return artifacts.encoder_digest(embeds.with_tokens(config.embeddings.tokens_per_side))


def _measured_by(embeds: encoder.Encoder) -> dict[str, np.ndarray]:
    """For its file: the origin of tokens where it is another than that of embeddings, and what
    makes them white."""
    tokens, white = embeds.token_origin, embeds.whitening
    arrays_ = {} if white is None else {"whitening": white}
    if tokens is not None and tokens is not embeds.origin:
        arrays_["token_origin"] = tokens
    return arrays_


def _without_folders(value: Any) -> Any:
    """Settings in which a file is named without its folder, which is the trainer's own affair;
    addresses on the Hub stay, and rules of a mesh, whose patterns have slashes too."""
    if isinstance(value, Mapping):
        return {k: v if k == "mesh" else _without_folders(v) for k, v in value.items()}
    if isinstance(value, tuple | list):
        return [_without_folders(v) for v in value]
    if isinstance(value, str) and "/" in value:
        parts = value.split(",")
        return ",".join(p if hub.is_address(p) else pathlib.PurePath(p).name for p in parts)
    return value
