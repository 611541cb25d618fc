"""Every stage on the demo slide in about a minute: for tests. Its pictures are noise.

python -m ssldiff_jax.main --config=configs/tiny.py --workdir=runs/tiny
"""

from configs import demo


def get_config():
    """The demo with very short trainings of smaller models, and 2×2 cells."""
    return shrink(demo.get_config())


def shrink(c):
    """The same for any config that starts from the demo's."""
    c.logging.looks = 2
    c.data.crops.num_crops = 64
    c.data.regions.rows = 2
    c.data.regions.cols = 2
    # One vector a cell, so that steps need no second level of the prior.
    c.embeddings.tokens_per_side = 1
    for section in (c.encoder, c.judge):
        section.model.vit.width = 32
        section.model.vit.depth = 1
        section.model.vit.num_heads = 2
        _short(section.train)
    c.autoencoder.model.light.channels = 16
    c.autoencoder.model.light.num_blocks = 1
    _short(c.autoencoder.train)
    c.denoiser.unet.channels = 16
    c.denoiser.unet.context_dim = 32
    c.denoiser.unet.channel_mult = (1, 2)
    c.denoiser.unet.attention_levels = ()
    c.denoiser.unet.num_heads = 2
    c.denoiser.dit.shape.width = 16
    c.denoiser.dit.shape.depth = 2
    c.denoiser.dit.shape.num_heads = 2
    # The published solver knows paths that preserve variance alone.
    c.denoiser.schedule.name = "cosine"
    c.denoiser.loss.prediction = "v"
    c.denoiser.loss.min_snr_gamma = 5.0
    _short(c.denoiser.train)
    c.distill.visits = 0
    _short(c.distill.train)
    c.prior.grids.side = 2
    c.prior.grids.max_cells = 2
    c.prior.grids.count = 40
    c.prior.grids.count_test = 8
    c.prior.conditions.measure = "stain"
    c.evaluate.classes = "stain"
    c.prior.network.width = 16
    c.prior.network.depth = 1
    c.prior.network.num_heads = 2
    c.prior.solver.num_solver_steps = 3
    _short(c.prior.train)
    c.tokens.network.width = 16
    c.tokens.network.depth = 1
    c.tokens.network.num_heads = 2
    c.tokens.solver.num_solver_steps = 3
    _short(c.tokens.train)
    c.imagine.count = 4
    c.sample.solver.num_solver_steps = 3
    # Some steps are guided and some are not.
    c.sample.guidance.interval = (0.4, 1.0)
    c.sample.window_batch = 8
    c.sample.num_variations = 2
    c.evaluate.num_patches = c.evaluate.num_training = 12
    return c


def _short(train):
    train.num_steps = 4
    train.compute.dtype = "float32"
    train.batch_size = 8
    train.log_every = 2
    train.checkpoint_every = 2
    train.optimizer.warmup_steps = 1
