"""The demo: every model trained from scratch on one slide by two CPU cores.

    bash launch/demo.sh

Hardware and time: two cores of an AMD EPYC, 17 min from clone to report, two steps at a time in
5.5 GB (2026-11-29).
Expected on the held-out region: cell retrieval 0.80 by the encoder and 0.80 by the judge (0.72 to
0.86), embedding similarity by the judge 0.93 against 0.32 of other cells, class maps at 8 px IoU
0.74, layout correlation 0.99, nuclei in a cell: correlation of their number 0.84; images of the
prior show what their condition says (correlation of parts in quadrants 0.88 to 0.94).

`--config=configs/demo.py:words` trains a prior that reads sentences.
"""

from configs import default


def get_config(mode: str = ""):
    """Small models and short trainings; nothing else differs from a full run. `words` for a prior
    that reads."""
    if mode not in ("", "words"):
        raise ValueError(f"configs/demo.py takes no mode or words, got {mode!r}")
    config = default.get_config()
    config.runtime.keep_freed_memory = True
    # The first look at a denoiser compiles for 50 s of CPU; the report has pictures of all.
    config.logging.looks = 0
    _data(config.data)
    # One vector says what a cell of 64 px holds, 4 × 4 say where in it.
    config.embeddings.tokens_per_side = 4
    _encoder(config.encoder)
    _judge(config.judge)
    _autoencoder(config.autoencoder)
    _denoiser(config.denoiser)
    _distill(config.distill)
    _prior(config.prior)
    _tokens(config.tokens)
    _evaluate(config.evaluate)
    config.imagine.count = 24
    _sample(config.sample)
    if mode == "words":
        learn_words(config)
    return config


def learn_words(config):
    """Sentences on what is measured, for the prior to read."""
    config.prior.conditions.captions = "measured"
    config.prior.conditions.text_encoder = ".venv/share/ssldiff_jax/all-MiniLM-L6-v2"
    config.prior.grids.count = 6000
    # Half of the time a text is all that is said. The noise stands for words that training has not.
    config.prior.drop.kind = 0.5
    config.prior.drop.text_noise = 1.0
    config.prior.guidance.scale = 3.0
    config.prior.train.num_steps = 2500
    # Classes may be rare: of few images a correlation is anything.
    config.imagine.count = 64


def _data(c):
    c.slides = "demo"
    c.holdout.by = "area"
    c.holdout.fraction = 0.3
    c.records.record_px = 160
    c.records.stride_px = 80
    c.records.min_tissue = 0.25
    c.regions.rows = 8
    c.regions.cols = 8
    c.crops.patch_px = 64
    c.crops.num_crops = 8000
    c.crops.context_px = 8
    c.crops.dihedral = True
    c.loader.num_threads = 2
    c.loader.prefetch = 128


def _encoder(c):
    c.model.objective = "infonce"
    # Features before a head separate kinds of tissue but lie in a narrow cone, so that all
    # cosines are high: white, they fill the sphere.
    c.model.infonce.head_dim = 128
    c.model.origin = "white"
    c.model.vit.image_px = 64
    c.model.vit.patch_px = 8
    c.model.vit.width = 96
    c.model.vit.depth = 3
    c.model.vit.num_heads = 3
    c.model.vit.pool = "mean"
    c.model.jitter.brightness = 0.1
    c.model.jitter.contrast = 0.1
    c.model.jitter.channel = 0.05
    c.model.shift_px = 8
    c.train.num_steps = 230
    c.train.batch_size = 96
    _short(c.train, learning_rate=1e-3, ema_decay=0.98)


def _judge(c):
    # Narrower, and trained with larger shifts: another encoder than the one that conditions the
    # generator.
    _encoder(c)
    c.model.vit.width = 64
    c.model.vit.num_heads = 2
    c.model.shift_px = 16
    c.model.origin = "mean"
    c.train.num_steps = 200


def _autoencoder(c):
    c.model.kind = "light"
    c.loss.gradient_weight = 1.0
    c.loss.spectrum_weight = 1.0
    # By the encoder's last layer. By the mean or the sum of all: 23.9 and 24.0 dB, power at periods
    # of 2 to 4 px .41 and .39 of the real (24.0 dB, .43), one seed each. Latents of an eighth of
    # the side, 16 channels, as many steps: 23.4 dB and .19 (28.1 dB, .49) on the slide turned by
    # 90°.
    c.loss.perceptual_weight = 0.1
    c.loss.adversarial.weight = 0.0
    c.train.num_steps = 560
    c.train.batch_size = 16
    _short(c.train, learning_rate=2e-3, ema_decay=0.99)


def _denoiser(c):
    c.unet.latent_channels = 4
    c.unet.channels = 32
    c.unet.channel_mult = (1, 3, 4)
    c.unet.num_res_blocks = 1
    c.unet.attention_levels = (2,)
    c.unet.num_heads = 4
    c.unet.context_dim = 192
    c.unet.conditioning = "scale_shift"
    # A step takes as long as one of the UNet.
    c.dit.latent_channels = 4
    c.dit.shape.width = 192
    c.dit.shape.depth = 6
    c.dit.shape.num_heads = 6
    c.dit.conditioning = "scale_shift"
    c.embedding_length = "root_dim"
    # At equal steps the straight path shows more nuclei and truer edges than cosine and v. On the
    # slide turned by 90°, another end of it held out, three seeds of 1 500 steps each: class maps
    # .78, .79, .78 against .75, .76, .76; crop FD .043, .044, .045 against .047, .042, .047.
    # U-REPA at .5, embeddings that are not white, sigmoid weights, one seed each: no more than
    # seeds differ by.
    c.schedule.name = "linear"
    c.loss.prediction = "velocity"
    # At equal work, twice the steps of half the batch learn more.
    c.train.num_steps = 3000
    c.train.batch_size = 16
    _short(c.train, learning_rate=2e-3, ema_decay=0.995)


def _distill(c):
    c.visits = 4
    c.train.num_steps = 800
    c.train.batch_size = 16
    _short(c.train, learning_rate=5e-4, ema_decay=0.98)


def _prior(c):
    c.grids.side = 4
    c.grids.max_cells = 6
    c.grids.count = 3000
    c.grids.count_test = 256
    c.conditions.measure = "stain"
    c.network.width = 128
    c.network.depth = 4
    c.network.num_heads = 4
    c.train.num_steps = 800
    c.train.batch_size = 48
    _short(c.train, learning_rate=2e-3, ema_decay=0.99)


def _tokens(c):
    # Of nothing while config.embeddings.tokens_per_side is 1.
    c.network.width = 128
    c.network.depth = 4
    c.network.num_heads = 4
    c.train.num_steps = 500
    c.train.batch_size = 48
    _short(c.train, learning_rate=2e-3, ema_decay=0.99)


def _evaluate(c):
    c.num_patches = 64
    c.classes = "stain"


def _sample(c):
    # With tokens the Fréchet distance is least here, and pixels vary as much as real ones.
    c.guidance.scale = 2.0
    c.guidance.interval = (0.0, 1.0)
    c.solver.t_start = 990
    c.windows.max_offset = 2
    c.window_batch = 27
    c.decode.tile = 48


def _short(c, *, learning_rate, ema_decay):
    c.optimizer.learning_rate = learning_rate
    c.optimizer.ema_decay = ema_decay
    c.optimizer.warmup_steps = 40
    c.optimizer.decay = "cosine"
    c.compute.dtype = "float32"  # no faster in bfloat16 on CPU
    c.log_every = 20
    c.checkpoint_every = 1000
