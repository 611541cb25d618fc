"""Stage `distill`: train a student of the denoiser, which takes guidance as an input and long steps
in one call each."""

from typing import Any

from ssldiff_jax.core import digests, rng
from ssldiff_jax.data import loader, store
from ssldiff_jax.runs import stage, training_tasks
from ssldiff_jax.train import loop


def run(context: stage.Context) -> dict[str, Any]:
    """Train on what the denoiser was trained on; the checkpoints are the result. Nothing where no
    visits are asked for."""
    config, section = context.config, context.config.distill
    if not section.visits:
        return {"visits": 0}
    task = training_tasks.training_task("distill", config, context.artifacts)
    latents, embeddings = (store.Store(context.folder(name)) for name in ("latents", "embeddings"))
    batches = loader.cached_batches(
        latents,
        embeddings,
        batch_size=section.train.batch_size,
        seed=rng.seed_of(config.seed, "distill/data"),
        config=config.data.loader,
        leave_out=("whole",),  # the prior's alone
        counts=tuple(embeddings.facts.get("crops_of_levels", ())),
    )
    run_ = training_tasks.training_run(context, "distill")
    params = loop.fit(task, batches, section.train, run_)
    return {"visits": section.visits, "student": digests.of_params(params)}
