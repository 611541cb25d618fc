"""Stage `denoiser`: train the latent diffusion model on cached latents and embeddings."""

from typing import Any

from ssldiff_jax.core import digests
from ssldiff_jax.data import loader, store
from ssldiff_jax.diffusion import conditioning
from ssldiff_jax.diffusion import loss as loss_lib
from ssldiff_jax.runs import artifacts, stage
from ssldiff_jax.train import loop
from ssldiff_jax.weights import published


def run(context: stage.Context) -> dict[str, Any]:
    """Train; the checkpoints are the result."""
    config, section = context.config, context.config.denoiser
    embeddings = store.Store(context.folder("embeddings"))
    dim = embeddings.facts["dim"]
    model = section.model(dim, config.num_cells)
    task = loss_lib.DenoisingTask(
        conditioning.Denoiser(model),
        artifacts.load_scaling(context.folder("latents")),
        section.process,
        section.loss.cond_drop_rate,
        section.loss.min_snr_gamma,
    )
    batches = loader.cached_batches(
        store.Store(context.folder("latents")),
        embeddings,
        batch_size=section.train.batch_size,
        seed=config.seed + 3,
        config=config.data.loader,
    )
    start = None
    if section.weights:
        file = published.ModelFile.read(section.weights)
        start = published.load_denoiser(file, model)
    run_ = artifacts.training_run(context, "denoiser")
    params = loop.fit(task, batches, section.train, run_, start=start)
    return {"embedding_dim": dim, "denoiser": digests.of_params(params)}
