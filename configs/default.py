"""Every key, once. Patches, autoencoder and denoiser have the published sizes of TCGA-BRCA 20×.

Encoder, prior and judge are trained from scratch; large images are sampled in fewer calls than
published (`sample_as_published` has that way).

Other configs start from `get_config()` and change what differs. Any key can be set on the command
line: --config.denoiser.train.batch_size=64
"""

from ml_collections import ConfigDict

from configs.defaults import (
    autoencoder,
    bench,
    data,
    denoiser,
    encoder,
    evaluate,
    generate,
    machine,
    prior,
    sample,
    study,
    sweep,
    tools,
)


def get_config() -> ConfigDict:
    """The config tree, locked: a misspelt key is an error."""
    config = ConfigDict()
    # Root of every random stream.
    config.seed = 0
    # Comma-separated, or all: patches, encoder, embeddings, autoencoder, latents, denoiser,
    # distill, sample, judge, evaluate, grids, prior, tokens, imagine, report. The tool plan runs
    # before all; generate, sweep, variations, watch, compare, study, export, features,
    # patch_images, verify, bench and compile when named.
    config.stages = "all"
    # Stages to run again although they are done; the old output stays until the new one is whole.
    config.force = ""
    # Work directory of another run of the same sizes, whose models are used instead of training
    # own ones: for data that they never saw, evaluated by the same metrics.
    config.models = ""
    config.runtime = machine.runtime()
    config.logging = machine.logging()
    config.mesh = machine.mesh()
    config.data = data.get_config()
    config.encoder = encoder.get_config()
    config.embeddings = encoder.embeddings()
    config.autoencoder = autoencoder.get_config()
    config.denoiser = denoiser.get_config()
    config.distill = denoiser.distill()
    config.prior = prior.get_config()
    config.tokens = prior.tokens()
    config.sample = sample.get_config()
    config.imagine = prior.imagine()
    config.generate = generate.get_config()
    config.sweep = sweep.get_config()
    config.plan = tools.plan()
    config.bench = bench.bench()
    config.compile = bench.compile()
    config.variations = tools.variations()
    config.study = study.get_config()
    config.export = tools.export()
    config.features = tools.features()
    config.patch_images = tools.patch_images()
    # An encoder that only the evaluation sees: same recipe, other sizes.
    config.judge = encoder.get_config()
    config.evaluate = evaluate.get_config()
    config.compare = tools.compare()
    config.report = evaluate.report()
    config.lock()
    return config


def sample_as_published(config: ConfigDict) -> None:
    """Large images as the published code samples them, errors included.

    169 overlapping windows at each of 50 steps, the network given t + 1, noise of single
    timesteps over strides of 20, guidance of 4, decoded window by window.
    """
    c = config.sample
    c.conditioning = "interpolated"
    c.interpolation = "slerp"
    c.guidance.scale = 4.0
    c.guidance.interval = (0.0, 1.0)
    c.solver.name = "paper"
    c.solver.num_solver_steps = 50
    c.solver.t_start = 999
    c.windows.mode = "paper"
    c.decode.tile = 64
    c.decode.overlap = 48
    c.decode.blend = "paper"
    c.compute_dtype = "float32"
    config.autoencoder.latent_scaling = "none"


def small_encoder(section: ConfigDict, *, px: int, num_steps: int, width: int = 384) -> None:
    """A ViT of patches of 8 px by DINO for images of `px`, and a training that one GPU can do."""
    section.model.vit.width = width
    section.model.vit.num_heads = width // 64
    section.model.vit.image_px = px
    section.model.vit.patch_px = 8
    section.model.dino.num_prototypes = 8192
    section.model.dino.local_px = px // 2
    section.train.num_steps = num_steps
    section.train.batch_size = 256
    section.train.optimizer.warmup_steps = 1000
