"""Stage `denoiser`: train the latent diffusion model on cached latents and embeddings."""

from typing import Any

from ssldiff_jax.core import digests, rng
from ssldiff_jax.data import loader, store
from ssldiff_jax.formats import hub
from ssldiff_jax.runs import stage, training_tasks
from ssldiff_jax.stages.evaluate import denoiser_look
from ssldiff_jax.train import loop
from ssldiff_jax.weights import published, transformers


def run(context: stage.Context) -> dict[str, Any]:
    """Train; the checkpoints are the result."""
    config, section = context.config, context.config.denoiser
    task = training_tasks.training_task("denoiser", config, context.artifacts)
    # Aligned: example i of both is of one crop.
    latents, embeddings = (store.Store(context.folder(name)) for name in ("latents", "embeddings"))
    batches = loader.cached_batches(
        latents,
        embeddings,
        batch_size=section.train.batch_size,
        seed=rng.seed_of(config.seed, "denoiser/data"),
        config=config.data.loader,
        leave_out=("whole",),  # the prior's alone
        counts=tuple(embeddings.facts.get("crops_of_levels", ())),
    )
    start = None
    if section.weights:
        file = published.ModelFile.read(section.weights, "transformer")
        adapters = transformers.Adapters(section.lora)
        start = published.load_denoiser(file, task.denoiser.config, adapters)
    run_ = training_tasks.training_run(context, "denoiser")
    look = denoiser_look.look(context.artifacts, task.denoiser, context.here.mesh)
    params = loop.fit(task, batches, section.train, run_, start=start, look=look)
    dim = task.denoiser.config.embedding_dim
    facts = {"embedding_dim": dim, "denoiser": digests.of_params(params)}
    return facts | hub.noted(weights=section.weights)
