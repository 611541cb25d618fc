"""Tool `sweep`: the held-out regions with several sampler settings, each with its cost and its
metrics."""

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ssldiff_jax.core import arrays, patch_grid, rng, schema
from ssldiff_jax.evaluation.features import networks
from ssldiff_jax.evaluation.metrics import (
    diversity,
    large_image,
    means,
    pixels,
    seams,
    structure,
)
from ssldiff_jax.formats import atomic
from ssldiff_jax.generation import generator, plan, references
from ssldiff_jax.runs import artifacts, stage, structure_measures
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.runs.config import sample as sample_config
from ssldiff_jax.runs.config import sample_changes
from ssldiff_jax.sampler import shrunk
from ssldiff_jax.slides import pyramid

_LOG = logging.getLogger(__name__)

# Conditions at most, and patches of each, that say how far patches of one condition vary.
_VARIED, _VARIATIONS = 32, 4

REAL, AS_CONFIGURED = "real regions", "as the run samples"
"""What rows are called that have no changes to be called by."""
_HELD = ", held to the region shrunk {} times"


def run(context: stage.Context) -> dict[str, Any]:
    """Write `results.json`, a row for the real regions and one for each way, `table.md`, the first
    region as `reference.png` and as the way of row N generates it as `N.png`. A way that the
    denoiser was not trained for, or that comes to the same as an earlier one, is left out and
    said."""
    folder, config = context.folder("sweep"), context.config
    model = generator.Generator.of_run(context.artifacts, context.mesh, student=True)
    regions = [r for r in context.artifacts.references(model.embed) if r.kind == "region"]
    if not regions:
        raise schema.ConfigError(
            "the tool sweep expected held-out regions of the run, got none: "
            "see config.data.regions and config.data.holdout"
        )
    names = ("judge",) if config.embeddings.source else ("judge", "encoder")
    encoders = {n: networks.OfEncoder(n, context.artifacts.encoder(n)) for n in names}
    see = config.data.reading.multiband.shown_view
    references = [see(region.image) for region in regions]
    measures = structure_measures.of_run(context.artifacts, references)
    rows, alone = [_row_of_real(model, regions)], {}
    pyramid.write_png(folder / "reference.png", references[0])
    for way, section in _different(config).items():
        if section.conditioning == "cells" and config.num_cells == 1:
            _LOG.info("%s is left out: the denoiser was not trained on cells", way)
            continue
        if section.student != "off" and model.trained.student is None:
            _LOG.info("%s is left out: no student was trained, see config.distill", way)
            continue
        variant = model.with_sample(section)
        page = of_patches(section)
        if page not in alone:
            alone[page] = _Alone.of(variant, regions, encoders["judge"], config.seed)
        for factor in dict.fromkeys(config.sweep.held):
            row, first = _row(variant, regions, alone[page], encoders, measures, factor)
            pyramid.write_png(folder / f"{len(rows)}.png", first)
            rows.append({"variant": f"{way}{_HELD.format(factor) if factor else ''}"} | row)
            _LOG.info("%s: %s", rows[-1]["variant"], {k: _text(v) for k, v in row.items()})
            atomic.write_json(folder / "results.json", rows)
    atomic.write_atomic(folder / "table.md", lambda path: _write(path, rows))
    return {"variants": len(rows) - 1}


def _different(config: run_config.RunConfig) -> dict[str, sample_config.SampleSection]:
    """Every way that is not as an earlier one. All are read before the first is sampled: a misspelt
    last one is not found after hours."""
    ways: dict[sample_config.SampleSection, str] = {}
    for way in config.sweep.variants:
        first = ways.setdefault(sample_section(config, way), way)
        if first != way:
            _LOG.info("%s is left out: it is the same as %s", way, first or AS_CONFIGURED)
    return {way or AS_CONFIGURED: section for section, way in ways.items()}


def of_patches(section: sample_config.SampleSection) -> tuple[Any, ...]:
    """What of a way decides patches that are generated one by one: these know no windows, so that
    ways which differ in those alone share them."""
    called = section.as_called
    return called.student, called.guidance, called.solver, called.compute_dtype


def sample_section(config: run_config.RunConfig, way: str) -> sample_config.SampleSection:
    """config.sample with the changes of a way: "windows.mode=paper guidance.scale=4"; `w/8` is an
    eighth of a window.

    Raises ConfigError for a key that does not exist or a value that does not fit.
    """
    return sample_changes.changed(config, way, "config.sweep.variants")


@dataclasses.dataclass(frozen=True, eq=False)
class _Alone:
    """Cells generated one by one.

    Attributes:
        pages: all cells of each region.
        variation: of several patches of one condition, over that of the regions' real cells.
    """

    pages: list[arrays.Pixels]
    variation: float | None

    @classmethod
    def of(
        cls,
        model: generator.Generator,
        regions: Sequence[artifacts.Reference],
        judge: networks.Extractor,
        seed: int,
    ) -> "_Alone":
        """Those of the conditions of regions."""
        pages, real, conditions = [], [], []
        for i, region in enumerate(regions):
            cells = region.grid.reshape(-1, region.grid.shape[-1])
            patches = model.sample_patches(cells, seed=rng.seed_of(seed, "sweep/patches", i))
            pages.append(patch_grid.mosaic(patches, len(region.grid[0])))
            real.append(patch_grid.cut_cells(region.image, model.patch_px))
            conditions.append(cells)
        every = np.concatenate(conditions)
        chosen = np.linspace(0, len(every) - 1, min(_VARIED, len(every))).astype(int)
        again = np.repeat(every[chosen], _VARIATIONS, axis=0)
        patches = model.sample_patches(again, seed=rng.seed_of(seed, "sweep/variations"))
        generated = judge(patches).reshape(len(chosen), _VARIATIONS, -1)
        return cls(pages, diversity.of_condition(generated, judge(np.concatenate(real))))


def _row(model: generator.Generator, regions, alone: _Alone, encoders, measures, held: int = 0):
    """(figures, the first image), of images that are held to their regions shrunk `held` times."""
    generated, pairs, plans, side = [], [], [], model.patch_px
    config = model.config
    for repeat in range(config.sweep.num_generated):
        for i, region in enumerate(regions):
            seed = rng.seed_of(config.seed, "sweep/image", repeat * len(regions) + i)
            planned = references.plan_of(model, region, seed=seed)
            if held:
                planned = model.planner.held_to(planned, shrunk.coarse_of(region.image, held))
            plans.append(planned)
            generated.append(model.render(plans[-1]))
            pairs.append(large_image.Pair(generated[-1].image, region.image))
    seen = [pair.seen(config.data.reading.multiband.shown_view) for pair in pairs]
    layout = [pixels.layout_correlation(p.image, p.reference, side)["identity"] for p in seen]
    variance = [pixels.variance_ratio(p.image, p.reference) for p in seen]
    of_layout = means.Mean.of(layout)
    row = {
        "unet_forwards": generated[0].unet_forwards,
        # The first image also compiles.
        "seconds": float(np.median([d.seconds for d in generated[1:] or generated])),
        **_seams(model, plans, [pair.image for pair in seen]),
        "layout_correlation": of_layout and of_layout.value,
        "variance_ratio": float(np.mean(variance)),
        "variation": alone.variation,
    } | of_structure(seen, measures)
    factors = [factor for factor in (held, *config.sweep.held) if factor]
    if factors:
        row["coarse_correlation"] = _coarse_correlation(pairs, factors[0])
    real = [region.image for region in regions]
    for name, embed in encoders.items():
        cells = large_image.cells(pairs, embed, side)
        row[f"{name}/similarity"] = float(cells["embedding_similarity"]["mean"])
        row[f"{name}/retrieval"] = float(cells["cell_retrieval_top1"])
        row[f"{name}/crop_fd_uncorrected"] = large_image.crops(pairs, embed, side)[
            "crop_fd_uncorrected"
        ]
        row[f"{name}/patch_fd_uncorrected"] = large_image.patch_distance(
            real, alone.pages, embed, side
        )
    return row, seen[0].image


def _coarse_correlation(pairs: Sequence[large_image.Pair], factor: int) -> float:
    """Of images with their regions, both shrunk: the mean over them."""
    return float(
        np.mean(
            [
                shrunk.correlation([p.image], shrunk.coarse_of(p.reference, factor), factor)
                for p in pairs
            ]
        )
    )


def _row_of_real(model: generator.Generator, regions: Sequence[artifacts.Reference]):
    """The seams of real images: what a line or the worst of many phases has without windows."""
    plans = [references.plan_of(model, region, seed=i) for i, region in enumerate(regions)]
    see = model.config.data.reading.multiband.shown_view
    return {"variant": REAL} | _seams(model, plans, [see(region.image) for region in regions])


def of_structure(
    pairs: Sequence[large_image.Pair], measures: Mapping[str, structure.Measure]
) -> dict[str, float | None]:
    """IoU of class maps, MS-SSIM, agreement of edges and power at the finest periods; None of what
    a run has no measure for."""
    columns = {
        "class_iou": "mean",
        "ms_ssim": "ms_ssim",
        "edges": "orientation",
        "power": structure.FINEST,
    }
    return {
        name: structure.values(measures[name], pairs)[figure] if name in measures else None
        for name, figure in columns.items()
    }


def _seams(
    model: generator.Generator,
    plans: Sequence[plan.ImagePlan],
    images: Sequence[arrays.ImageUint8],
) -> dict[str, float | None]:
    """Steps across the window lines of the last solver step, and at the worst phase of all, over
    those beside; each with its standard error over images."""
    factor, side = model.config.downsample_factor, model.patch_px
    last, worst = [], []
    for planned, image in zip(plans, images, strict=True):
        lines = seams.Lines.of_step(planned.windows, -1, factor=factor, size=planned.size)
        last.append(seams.step_ratio(image, lines, factor=factor, reach=side // 2))
        phase = seams.worst_phase(image, period=side, factor=factor)
        worst.append(phase and phase.ratio)
    figures = {}
    for name, ratios in (("last_step_seams", last), ("worst_phase", worst)):
        mean = means.Mean.of(ratios)
        figures |= {name: mean and mean.value, f"{name}_error": mean and mean.error}
    return figures


def _text(value: str | float | None) -> str:
    return "–" if value is None else value if isinstance(value, str) else f"{value:.4g}"


def _write(path, rows: list[dict[str, Any]]) -> None:
    # What is known of real images alone is not all that is of generated ones.
    columns = list(rows[-1])
    lines = [" | ".join(columns), " | ".join("---" for _ in columns)]
    for row in rows:
        lines.append(" | ".join(_text(row.get(column)) for column in columns))
    path.write_text("".join(f"| {line} |\n" for line in lines))
