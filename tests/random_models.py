"""A generator of configs/tiny.py with random weights: what it does is tested without a run."""

import jax
import numpy as np

from configs import tiny
from ssldiff_jax.autoencoder import autoencoder
from ssldiff_jax.core import schema
from ssldiff_jax.diffusion import conditioning
from ssldiff_jax.encoders import encoder, vit
from ssldiff_jax.generation import generator, models, token_sampler
from ssldiff_jax.prior import network, whitening
from ssldiff_jax.prior import tokens as tokens_lib
from ssldiff_jax.runs import artifacts
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.train import mesh as mesh_lib
from ssldiff_jax.weights import names, published


def make(
    tokens_per_side: int = 1, pool: str = "mean", visits: int = 0, **changes
) -> generator.Generator:
    """The same one every time; with `visits` there is a student, who has learnt nothing: it has the
    denoiser's parameters. `a__b` changes the key a.b."""
    source = np.random.default_rng(0)
    normal = lambda leaf: 0.05 * source.standard_normal(leaf.shape, np.float32)
    random = lambda shapes: jax.tree.map(normal, shapes)
    values = tiny.get_config()
    values.embeddings.tokens_per_side = tokens_per_side
    values.encoder.model.vit.pool = pool
    values.tokens.max_offset = tokens_per_side // 2
    values.distill.visits = visits
    values.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
    config = schema.build(run_config.RunConfig, values.to_dict())
    architecture, stage = config.encoder.architecture, config.autoencoder.model
    px, dim = architecture.vit.image_px, architecture.vit.width
    image = np.zeros((1, px, px, 3), np.float32)
    sizes = config.denoiser_sizes(dim)
    count = stage.chosen.latent_channels
    scaling = autoencoder.LatentScaling((1.0,) * count, (0.0,) * count)
    first_stage = random(published.abstract_autoencoder(stage))
    embeds = encoder.Encoder(architecture, random(names.abstract(vit.ViT(architecture.vit), image)))
    params, student = random(published.abstract_denoiser(sizes)), None
    if visits:
        own = random(published.abstract_denoiser(sizes.of_student))["step"]
        own["step_out"] = jax.tree.map(np.zeros_like, own["step_out"])
        student = models.Network(conditioning.Denoiser(sizes.of_student), params | {"step": own})
    trained = models.Models(
        embeds,
        autoencoder.TrainedAutoencoder(stage, first_stage, scaling),
        conditioning.Denoiser(sizes),
        params,
        student=student,
    )
    return generator.Generator(config, trained, mesh_lib.make_mesh(config.mesh))


def tokens_of(model: generator.Generator, per_side: int) -> token_sampler.TokenSampler:
    """What samples tokens for a generator, with random weights and spreads."""
    source, dim = np.random.default_rng(1), model.encoder.dim
    section, spec = model.config.tokens, tokens_lib.spec(dim)
    white = []
    for _ in range(2):
        matrix = np.eye(dim) + 0.1 * source.normal(size=(dim, dim))
        mean, inverse = source.normal(size=dim), np.linalg.inv(matrix)
        white.append(whitening.Whitening(*(x.astype(np.float32) for x in (mean, matrix, inverse))))
    shape = (1, per_side, per_side, dim)
    inputs = (np.zeros(shape, np.float32), np.zeros(1, int), np.zeros((1, spec.dim), np.float32))
    shapes = names.abstract(network.GridDenoiser(section.network, spec), *inputs)
    params = jax.tree.map(lambda p: 0.1 * source.normal(size=p.shape).astype(np.float32), shapes)
    of = tokens_lib.WhiteTokens(*white)
    digest = artifacts.encoder_digest(model.condition_encoder)
    return token_sampler.TokenSampler(section, per_side, digest, of, params)
