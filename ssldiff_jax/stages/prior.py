"""Stage `prior`: train p(grid | condition) on white grids."""

from typing import Any

from ssldiff_jax.data import loader, store
from ssldiff_jax.prior import conditions, network
from ssldiff_jax.prior import loss as loss_lib
from ssldiff_jax.stages import parts, prior_config, runner
from ssldiff_jax.train import loop


def task(section: prior_config.PriorSection, spec: conditions.ConditionSpec) -> loss_lib.PriorTask:
    """What is trained."""
    model = network.GridDenoiser(section.network, spec)
    return loss_lib.PriorTask(model, section.schedule, section.loss, section.drop)


def run(context: runner.Context) -> dict[str, Any]:
    """Train; the checkpoints are the result."""
    config, section = context.config, context.config.prior
    grids = store.Store(context.folder("grids") / "train")
    spec = parts.condition_spec(grids.facts["spec"])
    batches = loader.cached_batches(
        grids,
        batch_size=section.train.batch_size,
        seed=config.seed + 4,
        config=config.data.loader,
    )
    params = loop.fit(task(section, spec), batches, section.train,
                      parts.training_run(context, "prior"))  # fmt: skip
    return {"prior": parts.params_digest(params)}
