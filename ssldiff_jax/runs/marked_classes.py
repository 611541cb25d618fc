"""What takes classes that a user marks by polygons as labels, and whether any are named."""

from collections.abc import Collection, Iterator

from ssldiff_jax.core import schema
from ssldiff_jax.data.annotations import measures
from ssldiff_jax.runs.config import run as run_config


def missing(config: run_config.RunConfig, stages: Collection[str]) -> Iterator[str]:
    """A line for each key that asks for them in vain, of those that stages read."""
    study, data = config.study, config.data
    in_bags = "bags" in study.tasks and study.bags.of == "regions"
    asked = (
        ("prior.conditions.measure", "grids", config.prior.conditions.measure),
        ("evaluate.classes", "evaluate", config.evaluate.classes),
        ("study.patches.labels", "study", study.patches.labels if "patches" in study.tasks else ""),
        ("study.bags.measure", "study", study.bags.measure if in_bags else ""),
    )
    for key, stage, value in asked:
        if stage not in stages or value != measures.ANNOTATIONS:
            continue
        try:
            data.annotations.require_classes(f"config.{key}=annotations", in_table=data.is_table)
            if key == "study.bags.measure":
                study.bags.require_shown(measures.class_names(value, data.annotations.classes))
        except schema.ConfigError as error:
            yield str(error)
