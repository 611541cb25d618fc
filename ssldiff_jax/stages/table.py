"""The stages, in order, and the tools."""

from collections.abc import Callable
from typing import Any

from ssldiff_jax.formats import fingerprints
from ssldiff_jax.generation import user_images
from ssldiff_jax.runs import stage
from ssldiff_jax.runs.command import final_message
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.stages import (
    autoencoder,
    denoiser,
    embeddings,
    encoder,
    grids,
    imagine,
    latents,
    patches,
    prior,
    report,
    sample,
)
from ssldiff_jax.stages.evaluate import evaluate
from ssldiff_jax.stages.tools import compare, export, generate, sweep, variations, verify, watch
from ssldiff_jax.stages.tools.bench import bench
from ssldiff_jax.stages.tools.compile import compile
from ssldiff_jax.stages.tools.plan import plan
from ssldiff_jax.stages.tools.study import study


def _weights(section: str) -> Callable[[run_config.RunConfig], Any]:
    """Facts about the file of weights that a section names."""
    return lambda config: fingerprints.of_path(
        getattr(config, section).weights, f"{section}.weights"
    )


def _networks(config: run_config.RunConfig) -> Any:
    """Facts about the files that an evaluation reads."""
    section = config.evaluate
    of = lambda path: fingerprints.of_path(path, "evaluate.extractors")
    named = {name: of(path) for name, path in section.networks.items()}
    return named | {"reference": fingerprints.of_path(section.reference, "evaluate.reference")}


# What cuts crops out of slides, and so decides every model that sees some.
_CROPS = ("data.crops", "data.records")

STAGES: stage.Table = {
    "plan": stage.Stage(
        lambda context: plan.run(context, STAGES),
        ("plan",),
        tool=True,
        always=True,
        leads=True,
        elsewhere=True,
    ),
    "patches": stage.Stage(
        patches.run, ("data", "embeddings"), inputs=patches.fingerprint, on="all"
    ),
    "encoder": stage.Stage(
        encoder.run,
        ("encoder", "embeddings", *_CROPS),
        ("patches",),
        inputs=_weights("encoder"),
        on="all",
    ),
    "embeddings": stage.Stage(
        embeddings.run,
        _CROPS,
        ("patches", "encoder"),
        inputs=lambda config: config.embeddings.fingerprint(),
        on="all",
    ),
    "autoencoder": stage.Stage(
        autoencoder.run,
        ("autoencoder", *_CROPS),
        ("patches", "encoder"),
        inputs=_weights("autoencoder"),
        on="all",
    ),
    "latents": stage.Stage(latents.run, _CROPS, ("patches", "autoencoder"), on="all"),
    "denoiser": stage.Stage(
        denoiser.run,
        ("denoiser",),
        ("embeddings", "latents"),
        inputs=_weights("denoiser"),
        on="all",
    ),
    "sample": stage.Stage(
        sample.run,
        ("sample",),
        ("patches", "denoiser", "autoencoder"),
        is_dry_run=lambda config: config.sample.dry_run,
        ending=final_message.paths("image_*.png", "image_*.tif"),
    ),
    "judge": stage.Stage(
        encoder.run_judge, ("judge", *_CROPS), ("patches",), inputs=_weights("judge"), on="all"
    ),
    "evaluate": stage.Stage(
        evaluate.run,
        ("evaluate",),
        ("patches", "sample", "judge"),
        inputs=_networks,
        ending=final_message.paths("results.json"),
    ),
    "grids": stage.Stage(
        grids.run,
        ("prior.grids", "prior.conditions", *_CROPS),
        ("patches", "encoder"),
        inputs=lambda config: config.prior.conditions.fingerprint(),
        on="all",
    ),
    "prior": stage.Stage(prior.run, ("prior",), ("grids",), on="all"),
    "imagine": stage.Stage(
        imagine.run,
        ("imagine", "sample", "prior"),
        ("patches", "prior", "denoiser", "autoencoder"),
        ending=final_message.paths("image_*.png", "results.json"),
    ),
    # No sections: it shows what the stages noted, and depends on them.
    "report": stage.Stage(
        report.run,
        (),
        ("patches", "sample", "evaluate"),
        after=("imagine",),
        ending=final_message.of_report,
    ),
    "generate": stage.Stage(
        generate.run,
        ("sample", "generate", "prior"),
        ("patches", "denoiser", "autoencoder"),
        spares=("patches",),
        inputs=generate.fingerprint,
        slug=generate.slug,
        ending=generate.ending,
        is_dry_run=lambda config: config.sample.dry_run,
        tool=True,
        on="all",
    ),
    "variations": stage.Stage(
        variations.run,
        ("sample", "variations"),
        ("patches", "denoiser", "autoencoder"),
        spares=("patches",),
        inputs=lambda config: user_images.fingerprint(config.variations.image, "variations.image"),
        tool=True,
        always=True,
        ending=final_message.paths("*.png", "*.tif"),
    ),
    "sweep": stage.Stage(
        sweep.run,
        ("sample", "sweep"),
        ("patches", "denoiser", "judge"),
        tool=True,
        always=True,
        ending=final_message.paths("table.md", "results.json"),
    ),
    # No `always`: it resumes with the checkpoints that it has not seen.
    "watch": stage.Stage(
        watch.run,
        ("denoiser", "sample", "evaluate"),
        ("patches", "embeddings", "latents", "judge"),
        inputs=_networks,
        watches=("denoiser",),
        tool=True,
        ending=final_message.paths("results.json"),
    ),
    "compare": stage.Stage(
        compare.run,
        ("compare", "evaluate"),
        # Taken where they are: folders can be compared without a run.
        follows=("judge", "encoder"),
        inputs=lambda config: _networks(config) | compare.fingerprint(config),
        tool=True,
        always=True,
        ending=final_message.of_compare,
    ),
    "study": stage.Stage(
        study.run,
        ("sample", "study"),
        ("patches", "denoiser", "autoencoder"),
        tool=True,
        always=True,
        ending=final_message.paths("results.json", "curves.json"),
    ),
    "export": stage.Stage(
        export.run,
        ("export",),
        ("denoiser", "autoencoder"),
        follows=("prior",),
        tool=True,
        always=True,
        ending=final_message.paths("*.safetensors"),
    ),
    # Whatever the config says, all that is stored is read.
    "verify": stage.Stage(
        verify.run, (), ("patches",), tool=True, always=True, ending=final_message.of_verify
    ),
    "compile": stage.Stage(
        compile.run,
        ("compile",),
        tool=True,
        always=True,
        elsewhere=True,
        ending=final_message.paths("results.json"),
    ),
    "bench": stage.Stage(
        bench.run,
        ("denoiser", "sample", "bench", "data.loader"),
        tool=True,
        always=True,
        ending=final_message.paths("results.json"),
    ),
}
