"""Stage `evaluate`: metrics of generated images, by the encoder and by the judge."""

import logging
import pathlib
from typing import Any

import numpy as np

from ssldiff_jax.core import patch_grid
from ssldiff_jax.evaluation.metrics import halves, large_image, means, pixels, structure
from ssldiff_jax.formats import atomic
from ssldiff_jax.generation import generator
from ssldiff_jax.runs import artifacts as artifacts_lib
from ssldiff_jax.runs import (
    held_out,
    patch_samples,
    results_csv,
    stage,
    structure_measures,
)
from ssldiff_jax.slides import optional, pictures
from ssldiff_jax.stages.evaluate import cell_files, large_images, levels, protocol, seam_figures
from ssldiff_jax.train import hosts

_LOG = logging.getLogger(__name__)

_FEATURES = (
    "embedding_similarity",
    "cell_retrieval_top1",
    "num_cells",
    "crop_fd_uncorrected",
    "fd_floor_uncorrected",
    "patch_fd_uncorrected",
)
_PIXELS = ("layout_correlation", "variance_ratio", "spectrum_ratio", "seams")


def run(context: stage.Context) -> dict[str, Any] | None:
    """Write `results.json`, and figures of every cell as `similarity_N.npy` and, of regions,
    `cells_N.geojson` or `cells_N.h5ad`.

    Hosts share the generation and the features of patches; the first one does the rest. Figures
    that a run cannot have are None: of large images, where held-out patches lie side by side and
    not in a region; by the encoder, where embeddings were computed elsewhere.
    """
    # Before what takes hours.
    optional.require(context.config.evaluate.cells)
    artifacts, folder = context.artifacts, context.folder("evaluate")
    networks, of_patches, of_levels = protocol.networks(artifacts), None, None
    training = None
    if context.config.evaluate.num_patches and "encoder" in networks:
        patch_protocol = protocol.Protocol.of_run(artifacts, networks, folder)
        model = generator.Generator.of_run(artifacts, context.here.mesh)
        of_patches = patch_protocol.run(model, folder)
        of_levels = levels.run(artifacts, networks, model, folder, of_patches)
        training = patch_protocol.of_training()
    figures = (of_patches or {}) | (of_levels or {})
    write = lambda: _write(artifacts, networks, figures, training)
    return hosts.on_first_host("figures of large images", write)


def _write(
    artifacts: artifacts_lib.Artifacts,
    networks: protocol.Networks,
    of_patches: dict[str, Any],
    training: protocol.Features | None,
) -> dict[str, Any]:
    """Measure the large images and write all figures; `training` are the judge's features of
    training patches, where patches were compared."""
    config, of_stage = artifacts.config, artifacts.folders.of_stage
    side, factor = config.data.crops.patch_px, config.downsample_factor
    folder, sampled = of_stage("evaluate"), of_stage("sample")
    references = artifacts.references()
    regions = all(reference.kind == "region" for reference in references)
    kind = "image" if regions else "patches"
    multiband = config.data.reading.multiband
    read = lambda name: pictures.read(sampled, name, multiband)
    pairs = [
        large_image.Pair(read(f"{kind}_{i}"), reference.image)
        for i, reference in enumerate(references)
    ]
    # As people see them; the networks of features see the bands that they were trained on.
    seen = [pair.seen(multiband.shown_view) for pair in pairs]
    patches = [read(f"patches_{i}") for i in range(len(pairs))]
    cases = None if regions else _cases_of_cells(of_stage("patches"), artifacts.patches("test"))
    of_cells = {
        name: [large_image.CellFeatures.of(pair, network, side) for pair in pairs]
        for name, network in networks.items()
    }
    of = lambda name: _features(pairs, patches, networks[name], side, of_cells[name], cases=cases)
    results = of("encoder") if "encoder" in networks else dict.fromkeys(_FEATURES)
    results |= _pixels(sampled, seen, side, factor) if regions else dict.fromkeys(_PIXELS)
    results["patch_borders"] = seam_figures.of_patches(
        [pair.reference for pair in seen],
        [multiband.shown_view(page) for page in patches],
        side,
        factor,
    )
    results |= {"judge": of("judge"), "structure": None}
    others = [name for name in networks if name not in protocol.OWN]
    results["outside"] = {name: of(name) for name in others}
    if regions:
        files = protocol.PatchFiles.of(config)
        results["large_image_frechet"] = large_images.run(files, pairs, networks)
        measures = structure_measures.of_run(artifacts, [pair.reference for pair in seen])
        of_bands = structure_measures.of_bands(config)
        results["structure"] = {
            name: structure.compare(measure, seen, side) for name, measure in measures.items()
        } | {name: structure.compare(measure, pairs, side) for name, measure in of_bands.items()}
    results |= of_patches
    cell_files.CellFiles(
        pairs,
        {name: of_cells[name] for name in protocol.OWN if name in networks},
        side,
        # Features of files with losses are not those of the images' own pixels.
        None if config.evaluate.jpeg_quality else training,
        cell_files.measure_of(config.evaluate.classes, config.level_data),
        held_out.slide_places(config, artifacts.folders),
    ).write(folder, config.evaluate.cells, mpp=config.level_data.patch_mpp)
    atomic.write_json(folder / "results.json", results)
    digest = atomic.read_json(sampled / "done.json")["digest"]
    # With the sample's digest, by which the report finds the row of its images.
    results_csv.add(artifacts.folders.workdir, {"tool": "evaluate", "sample": digest}, results)
    return results


def _features(
    pairs: list[large_image.Pair],
    patches: list[np.ndarray],
    embed: large_image.EmbedFn,
    side: int,
    of_cells: list[large_image.CellFeatures],
    *,
    cases: list[str] | None,
) -> dict[str, Any]:
    """`cases` of cells of pages; None of regions, whose cells are held against moved ones."""
    real = [pair.reference for pair in pairs]
    figures = large_image.cell_figures(of_cells)
    figures["patch_fd_uncorrected"] = large_image.patch_distance(real, patches, embed, side)
    if cases is None:
        return figures | large_image.crops(pairs, embed, side)
    cells = np.concatenate([patch_grid.cut_cells(page, side) for page in real])
    parted = halves.Halves.of_cases(cases)
    sides = cells[parted.first], cells[parted.second]
    floor = None
    # One vector has no covariance.
    if min(map(len, sides)) > 1:
        floor = large_image.cell_distance(*sides, embed)
    else:
        _LOG.warning("fd_floor_uncorrected is left out: %s, one half is a single cell", parted.by)
    return figures | {"crop_fd_uncorrected": None, "fd_floor_uncorrected": floor}


def _cases_of_cells(folder: pathlib.Path, source: patch_samples.RecordPatches) -> list[str]:
    """The case of every cell of all pages, in reading order."""
    pages = atomic.read_json(folder / "regions.json")
    numbers = [slide for page in pages for slide, _ in page["cells"]]
    # Of a list, each patch is its own slide: one record of it is enough.
    slides, counts = source.records.slides.T
    first = np.cumsum(counts) - counts
    records = first[np.searchsorted(slides, numbers)]
    return [source.metadata(number, "case") for number in records.tolist()]


def _pixels(
    sampled: pathlib.Path, pairs: list[large_image.Pair], side: int, factor: int
) -> dict[str, Any]:
    layouts = [pixels.layout_correlation(p.image, p.reference, side) for p in pairs]
    return {
        "layout_correlation": {
            key: (mean := means.Mean.of([layout[key] for layout in layouts])) and mean.value
            for key in layouts[0]
        },
        "variance_ratio": float(
            np.mean([pixels.variance_ratio(p.image, p.reference) for p in pairs])
        ),
        "spectrum_ratio": np.mean(
            [pixels.spectrum_ratio(p.image, p.reference) for p in pairs], axis=0
        ).tolist(),
        "seams": seam_figures.of_images(sampled, pairs, side, factor),
    }
