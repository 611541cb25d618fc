"""What models of several levels are trained on: records and crops of each."""

from collections.abc import Collection, Iterator

from ssldiff_jax.data import crop_reader, plan
from ssldiff_jax.data import records as records_lib
from ssldiff_jax.runs import artifacts as artifacts_lib
from ssldiff_jax.runs.config import run as run_config


def training_records(
    artifacts: artifacts_lib.Artifacts,
) -> tuple[records_lib.RecordSource, ...]:
    """Records that are trained on, of every level.

    Raises ValueError for a level without any.
    """
    levels = artifacts.config.data.levels
    sources = tuple(artifacts.records(plan.split_at("train", level)) for level in levels)
    for level, source in zip(levels, sources, strict=True):
        if not len(source):
            raise ValueError(
                f"config.data.levels: a record of level {level:g} must lie in the training part, "
                "got none; smaller ones (config.data.records.record_px) may fit"
            )
    return sources


def reader(artifacts: artifacts_lib.Artifacts) -> crop_reader.LevelReader:
    """The crops that embeddings and latents are cached for, of every level."""
    readers = (
        crop_reader.CropReader(source, artifacts_lib.crop_table(artifacts.config, source, number))
        for number, source in enumerate(training_records(artifacts))
    )
    return crop_reader.LevelReader(tuple(readers))


def untrainable(config: run_config.RunConfig, stages: Collection[str]) -> Iterator[str]:
    """A line where stages would train a conditioner that only published weights have."""
    conditioner = config.denoiser.conditioner
    is_finest = conditioner.name == "transformer" and conditioner.of == "finest"
    if is_finest and {"embeddings", "denoiser"}.intersection(stages):
        yield (
            "config.denoiser.conditioner.of must be own where a denoiser is trained, got finest, "
            "which is of published weights: Generator.load reads them"
        )
