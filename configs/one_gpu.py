"""One GPU: a published encoder and VQ-f4 by their weights, the published UNet trained on slides.

    python -m ssldiff_jax.main --config=configs/one_gpu.py --workdir=/data/run \
        --config.data.slides='/data/tcga/*.svs' --config.encoder.weights=/weights/hipt.pth \
        --config.autoencoder.weights=/weights/vq-f4.ckpt --config.judge.weights=/weights/phikon

Nothing is trained but the denoiser (400.9 M parameters on 64×64×3 latents, as published: 150 000
steps of 600 patches) and the prior. Other encoders: `--config.encoder.name=uni` and its file, or
`--config.embeddings.source=FOLDER` (then `--config.sample.conditioning=interpolated`). KL-f8:
`--config.autoencoder.model.kind=kl` with its channels.

`one_gpu.py` is for 80 GB: 600 patches in 4 parts of 150, 53 GB by XLA's account for an H200 (6.4 GB
of state, 1.6 GB of summed gradients, .30 GB a patch; bfloat16, nothing recomputed); the tool plan
says 49 GB. `one_gpu.py:24gb` is for 24 GB: 15 parts of 40, 20 GB by both. The updates are the same.

Hardware and hours, as `--config.stages=plan` states them, not measured: the denoiser 48 h of one
H100 (520 patches a second, from its maker's figures), 287 h of one RTX 4090; with 50 000 steps a
third. Expected: as configs/tcga.py, not measured.
"""

from configs import default


def get_config(card: str = "80gb"):
    """The published UNet in as many parts as a card's memory needs; `80gb` or `24gb`."""
    if card not in ("80gb", "24gb"):
        raise ValueError(f"configs/one_gpu.py takes 80gb or 24gb, got {card!r}")
    config = default.get_config()
    _published(config.encoder, "hipt")
    _published(config.judge, "phikon")
    config.autoencoder.train.num_steps = 0
    compute = config.denoiser.train.compute
    compute.accumulate, config.plan.devices = 4, "h100:1"
    if card == "24gb":
        compute.accumulate, config.plan.devices = 15, "rtx4090:1"
        config.sample.window_batch = 16
    return config


def _published(section, name):
    """An encoder that is used as it is."""
    section.name = name
    section.train.num_steps = 0
