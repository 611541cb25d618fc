"""The configs of the repository, as small as a minute on two cores allows."""

import typing

from configs import default, tiny
from ssldiff_jax.core import schema
from ssldiff_jax.runs.config import run as run_config


def small(c):
    """Any config of configs/."""
    return tiny.shrink(c) if c.autoencoder.model.kind == "light" else published(c)


def published(c):
    """A config that starts from configs/default.py, with networks of nothing and two steps."""
    c.data.records.min_tissue = 0.1
    c.data.records.record_px = c.data.records.stride_px = c.data.crops.patch_px = 64
    c.data.regions.count, c.data.regions.rows, c.data.regions.cols = 1, 3, 3
    c.data.crops.num_crops = min(c.data.crops.num_crops, 64)  # 0 is one for each record
    for section in (c.encoder, c.judge):
        section.model.vit.image_px, section.model.vit.patch_px = 64, 16
        section.model.vit.width, section.model.vit.depth, section.model.vit.num_heads = 16, 1, 2
        section.model.dino.num_prototypes, section.model.dino.head_width = 32, 32
        section.model.dino.num_local, section.model.dino.local_px = 1, 32
    c.autoencoder.model.conv.channels, c.autoencoder.model.conv.num_res_blocks = 8, 1
    c.denoiser.unet.channels, c.denoiser.unet.context_dim = 16, 8
    c.denoiser.unet.channel_mult, c.denoiser.unet.attention_levels = (1, 2), (1,)
    c.denoiser.unet.num_res_blocks = 1
    shape = c.denoiser.dit.shape
    shape.width, shape.depth, shape.num_heads = 16, 2, 2
    grids, network = c.prior.grids, c.prior.network
    grids.side, grids.max_cells, grids.count, grids.count_test = 2, 3, 12, 8
    network.width, network.depth, network.num_heads = 16, 1, 2
    c.prior.solver.num_solver_steps = 2
    tokens = c.tokens.network
    tokens.width, tokens.depth, tokens.num_heads = 16, 1, 2
    c.evaluate.num_patches, c.evaluate.num_training = 8, 12
    for section in (c.encoder, c.judge, c.autoencoder, c.denoiser, c.prior, c.tokens):
        train = section.train
        train.num_steps, train.log_every, train.checkpoint_every = 2, 1, 2
        train.batch_size = max(2, train.compute.accumulate)  # an example for each part
    c.sample.conditioning = "interpolated"
    c.sample.windows.mode, c.sample.windows.stride = "overlap", 8
    c.sample.windows.weights = "tapered"
    c.sample.solver.name, c.sample.solver.num_solver_steps, c.sample.solver.eta = "ddim", 2, 0.5
    c.sample.window_batch, c.sample.num_variations = 4, 1
    c.sample.decode.tile, c.sample.decode.overlap = 16, 4
    return c


def values_for(stages, **changes):
    """Values of configs/tiny.py for stages that read no slides; `a__b` changes the key a.b."""
    config = tiny.get_config()
    config.stages, config.data.slides = stages, ""
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
    return config.to_dict()


def section(key, **changes):
    """The section `key` (dotted) of configs/default.py with changes, checked as that of a run."""
    kind, values = run_config.RunConfig, default.get_config().to_dict()
    for name in key.split("."):
        kind, values = typing.get_type_hints(kind)[name], values[name]
    return schema.build(kind, values | changes, f"config.{key}")
