"""The stages, in order, and the tools."""

from typing import Any

from ssldiff_jax.runs import stage
from ssldiff_jax.runs.command import final_message
from ssldiff_jax.stages import inputs, later


def run_plan(context: stage.Context) -> Any:
    """Say what the steps of a run would take."""
    return later.Later("tools.plan.plan", "run")(context, STAGES)


# What cuts crops out of slides, and so decides every model that sees some.
_CROPS = ("data.crops", "data.records")
# Of all levels that models learn.
_LEARNT = (*_CROPS, "data.levels")

STAGES: stage.Table = {
    "plan": stage.Stage(
        run_plan,
        ("plan",),
        tool=True,
        always=True,
        leads=True,
        elsewhere=True,
    ),
    "patches": stage.Stage(
        later.Later("patches", "run"),
        ("data", "embeddings"),
        inputs=later.Later("patches", "fingerprint"),
        on="all",
    ),
    "encoder": stage.Stage(
        later.Later("encoder", "run"),
        ("encoder", "embeddings", *_LEARNT),
        ("patches",),
        inputs=inputs.encoder("encoder"),
        on="all",
    ),
    "embeddings": stage.Stage(
        later.Later("embeddings", "run"),
        # Of the section itself, other keys decide patches and are theirs to check.
        ("embeddings.tokens_per_side", "embeddings.tokens_of", *_LEARNT),
        ("patches", "encoder"),
        inputs=inputs.embeddings,
        on="all",
    ),
    "autoencoder": stage.Stage(
        later.Later("autoencoder", "run"),
        ("autoencoder", *_LEARNT),
        ("patches", "encoder"),
        inputs=inputs.weights("autoencoder"),
        on="all",
    ),
    "latents": stage.Stage(
        later.Later("latents", "run"), _LEARNT, ("patches", "autoencoder"), on="all"
    ),
    "denoiser": stage.Stage(
        later.Later("denoiser", "run"),
        ("denoiser",),
        ("embeddings", "latents"),
        inputs=inputs.denoiser,
        on="all",
    ),
    "distill": stage.Stage(
        later.Later("distill", "run"),
        # How the denoiser is sampled that is imitated.
        ("distill", "sample.guidance.interval", "sample.guidance.rescale", "sample.solver.t_start"),
        ("embeddings", "latents", "denoiser"),
        on="all",
    ),
    "sample": stage.Stage(
        later.Later("sample", "run"),
        ("sample",),
        ("patches", "denoiser", "autoencoder"),
        follows=("distill",),
        leaves=inputs.without_student,
        is_dry_run=lambda config: config.sample.dry_run,
        on="all",
        ending=final_message.paths("image_*.png", "image_*.tif"),
    ),
    "judge": stage.Stage(
        later.Later("encoder", "run_judge"),
        ("judge", *_LEARNT),
        ("patches",),
        inputs=inputs.encoder("judge"),
        on="all",
    ),
    "evaluate": stage.Stage(
        later.Later("evaluate.evaluate", "run"),
        ("evaluate",),
        ("patches", "sample", "judge"),
        inputs=inputs.networks,
        ending=final_message.paths("results.json"),
        on="all",
    ),
    "grids": stage.Stage(
        later.Later("grids", "run"),
        ("prior.grids", "prior.conditions", *_CROPS),
        ("patches", "encoder"),
        inputs=lambda config: config.prior.conditions.fingerprint(),
        on="all",
    ),
    "prior": stage.Stage(later.Later("prior", "run"), ("prior",), ("grids",), on="all"),
    "tokens": stage.Stage(
        later.Later("tokens", "run"),
        ("tokens", *_CROPS),
        ("patches", "encoder", "embeddings"),
        on="all",
    ),
    "imagine": stage.Stage(
        later.Later("imagine", "run"),
        ("imagine", "sample", "prior"),
        ("patches", "prior", "denoiser", "autoencoder"),
        # Where a cell has one token it has nothing of the first.
        follows=("tokens", "distill"),
        leaves=inputs.without_student,
        ending=final_message.paths("image_*.png", "results.json"),
        on="all",
    ),
    # No sections: it shows what the stages noted, and depends on them.
    "report": stage.Stage(
        later.Later("report", "run"),
        (),
        ("patches", "sample", "evaluate"),
        after=("imagine", "distill"),
        ending=final_message.of_report,
    ),
    "generate": stage.Stage(
        later.Later("tools.generate", "run"),
        ("sample", "generate", "prior"),
        ("patches", "denoiser", "autoencoder"),
        follows=("distill",),
        leaves=inputs.without_student,
        spares=("patches",),
        made_up_by_weights=("denoiser", "autoencoder"),
        # The judge sees what was made, whatever made it: an image does not depend on it.
        after=("denoiser", "autoencoder", "judge"),
        inputs=later.Later("tools.generate", "fingerprint"),
        slug=later.Later("tools.generate", "slug"),
        ending=later.Later("tools.generate", "ending"),
        is_dry_run=lambda config: config.sample.dry_run,
        tool=True,
        on="all",
    ),
    "variations": stage.Stage(
        later.Later("tools.variations", "run"),
        ("sample", "variations"),
        ("patches", "denoiser", "autoencoder"),
        follows=("distill",),
        leaves=inputs.without_student,
        spares=("patches",),
        made_up_by_weights=("denoiser", "autoencoder"),
        after=("denoiser", "autoencoder"),
        inputs=inputs.image,
        tool=True,
        always=True,
        ending=final_message.paths("*.png", "*.tif"),
    ),
    "sweep": stage.Stage(
        later.Later("tools.sweep", "run"),
        ("sample", "sweep"),
        ("patches", "denoiser", "judge"),
        follows=("distill",),
        leaves=inputs.unlearnt,
        tool=True,
        always=True,
        ending=final_message.paths("table.md", "results.json"),
    ),
    # No `always`: it resumes with the checkpoints that it has not seen.
    "watch": stage.Stage(
        later.Later("tools.watch", "run"),
        ("denoiser", "sample", "evaluate"),
        ("patches", "embeddings", "latents", "judge"),
        inputs=inputs.networks,
        watches=("denoiser",),
        tool=True,
        ending=final_message.paths("results.json"),
        on="all",
    ),
    "compare": stage.Stage(
        later.Later("tools.compare", "run"),
        ("compare", "evaluate"),
        # Taken where they are: folders can be compared without a run.
        follows=("judge", "encoder"),
        inputs=inputs.compared,
        tool=True,
        always=True,
        ending=final_message.of_compare,
    ),
    "study": stage.Stage(
        later.Later("tools.study.study", "run"),
        ("sample", "study"),
        ("patches", "denoiser", "autoencoder"),
        follows=("distill",),
        leaves=inputs.without_student,
        inputs=inputs.labels,
        tool=True,
        always=True,
        ending=final_message.paths("results.json", "curves.json"),
        on="all",
    ),
    "export": stage.Stage(
        later.Later("tools.export", "run"),
        ("export",),
        ("denoiser", "autoencoder"),
        follows=("prior", "tokens", "distill"),
        leaves=inputs.unlearnt,
        tool=True,
        always=True,
        ending=final_message.paths("*.safetensors"),
    ),
    "features": stage.Stage(
        later.Later("tools.features", "run"),
        ("features", *_CROPS),
        ("encoder",),
        tool=True,
        always=True,
        ending=later.Later("tools.features", "ending"),
    ),
    "patch_images": stage.Stage(
        later.Later("tools.patch_images", "run"),
        ("patch_images",),
        ("patches",),
        tool=True,
        always=True,
        ending=later.Later("tools.patch_images", "ending"),
    ),
    # Whatever the config says, all that is stored is read.
    "verify": stage.Stage(
        later.Later("tools.verify", "run"),
        (),
        ("patches",),
        tool=True,
        always=True,
        ending=final_message.of_verify,
    ),
    "compile": stage.Stage(
        later.Later("tools.compile.compile", "run"),
        ("compile",),
        tool=True,
        always=True,
        elsewhere=True,
        ending=final_message.paths("results.json"),
    ),
    "bench": stage.Stage(
        later.Later("tools.bench.bench", "run"),
        ("denoiser", "sample", "bench", "data.loader"),
        tool=True,
        always=True,
        elsewhere=True,
        ending=final_message.paths("results.json"),
    ),
}
