"""Patches of every level that the denoiser knows, against held-out ones of that level."""

import logging
import pathlib
from collections.abc import Mapping
from typing import Any

from ssldiff_jax.core import rng
from ssldiff_jax.evaluation.features import image_files
from ssldiff_jax.evaluation.metrics import summary
from ssldiff_jax.generation import generator
from ssldiff_jax.runs import artifacts as artifacts_lib
from ssldiff_jax.runs import patch_samples
from ssldiff_jax.stages.evaluate import protocol, regenerated
from ssldiff_jax.train import hosts

_LOG = logging.getLogger(__name__)


def run(
    artifacts: artifacts_lib.Artifacts,
    by: protocol.Networks,
    model: generator.Generator,
    folder: pathlib.Path,
    of_patches: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Figures under `levels`, by level and network; of the level of large images those of
    `of_patches`, which its patches have already. None where a level has too few held-out patches;
    nothing where there is one level alone. Hosts share the work, the first measures."""
    config, figures = artifacts.config, {}
    if len(config.data.levels) == 1:
        return {}
    for level in config.data.levels:
        if level == config.level:
            figures[f"{level:g}"] = of_patches and of_patches["patches"]
        else:
            of_level = artifacts.at_level(level)
            inside = folder / f"level_{level:g}"
            figures[f"{level:g}"] = _of_level(of_level, by, model.at_level(level), inside)
    return {"levels": figures}


def _of_level(
    artifacts: artifacts_lib.Artifacts,
    by: protocol.Networks,
    model: generator.Generator,
    folder: pathlib.Path,
) -> dict[str, Any] | None:
    config, section = artifacts.config, artifacts.config.evaluate
    held_out = patch_samples.Sample.choose(artifacts.patches("test"), section.num_patches)
    if len(held_out) < summary.LEAST:
        _LOG.warning(
            "level %g has no figures: %d held-out patches or more are needed, got %d",
            config.level, summary.LEAST, len(held_out),
        )  # fmt: skip
        return None
    files = protocol.PatchFiles.of(config)
    pair = regenerated.RegeneratedPatches(
        held_out,
        image_files.Files(folder / "real", files.format),
        image_files.Files(folder / "generated", files.format),
    )
    pair.make(model, rng.seed_of(config.seed, "evaluate/patches", config.level_number))
    by_network = {name: pair.features(network) for name, network in by.items()}

    def measure() -> dict[str, Any]:
        # Published statistics are of one magnification, which nothing says.
        return {
            name: protocol.compare(
                files.extraction(network), "", *by_network[name], "held-out patches", folder,
                cases=held_out.cases(), paired=True,
            )
            for name, network in by.items()
        }  # fmt: skip

    return hosts.on_first_host(f"figures of level {config.level:g}", measure)
