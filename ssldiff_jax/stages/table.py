"""The stages, in order."""

from ssldiff_jax.stages import (
    autoencoder,
    denoiser,
    embeddings,
    encoder,
    evaluate,
    latents,
    patches,
    report,
    runner,
    sample,
)

_CROPS = ("data.crops", "data.records")

STAGES: dict[str, runner.Stage] = {
    "patches": runner.Stage(patches.run, ("data",), inputs=patches.fingerprint),
    "encoder": runner.Stage(encoder.run, ("encoder", *_CROPS), ("patches",)),
    "embeddings": runner.Stage(embeddings.run, _CROPS, ("patches", "encoder")),
    "autoencoder": runner.Stage(autoencoder.run, ("autoencoder", *_CROPS), ("patches", "encoder")),
    "latents": runner.Stage(latents.run, _CROPS, ("patches", "autoencoder")),
    "denoiser": runner.Stage(denoiser.run, ("denoiser",), ("embeddings", "latents")),
    "sample": runner.Stage(sample.run, ("sample",), ("patches", "denoiser", "autoencoder")),
    "judge": runner.Stage(encoder.run_judge, ("judge", *_CROPS), ("patches",)),
    "evaluate": runner.Stage(evaluate.run, (), ("patches", "sample", "judge")),
    "report": runner.Stage(report.run, (), ("patches", "sample", "evaluate")),
}
