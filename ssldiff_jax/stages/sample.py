"""Stage `sample`: large images from held-out regions, and single patches."""

import functools
import logging
import pathlib
from collections.abc import Sequence
from typing import Any

from ssldiff_jax.core import arrays, patch_grid, rng
from ssldiff_jax.generation import generator, render
from ssldiff_jax.generation import references as references_lib
from ssldiff_jax.runs import amounts, artifacts, shown, stage
from ssldiff_jax.slides import pictures, pyramid
from ssldiff_jax.train import hosts

_LOG = logging.getLogger(__name__)


def run(context: stage.Context) -> dict[str, Any] | None:
    """Write for every region `image_N.png` and the other formats, for every reference
    `patches_N.png` (each cell generated singly), and `variations.png` (rows: a real patch, four
    samples of it). Hosts share the files, each of which is made by one; those that are there are
    not made again. A dry run only says what the regions cost."""
    config, folder = context.config, context.folder("sample")
    model = generator.Generator.of_run(context.artifacts, context.here.mesh)
    references = context.artifacts.references(model.embed)
    # Planned together: a config that does not fit a region is refused before any is rendered.
    jobs = [
        _render(model, folder, reference, i)
        for i, reference in enumerate(references)
        if reference.kind == "region"
    ]
    if config.sample.dry_run:
        hosts.on_first_host("what large images would take", lambda: _say_costs(jobs))
        return None
    pages = [
        functools.partial(_write_page, folder / f"patches_{i}.png", model, reference.grid, i)
        for i, reference in enumerate(references)
    ]
    variations = lambda: _write_variations(folder / "variations.png", model, references[0])
    # Those that take longest first: each host has its share of these.
    files = [*(large.run for large in jobs), *pages, variations]
    hosts.divide("large images and patches", files, lambda write: write())
    # They are there: what each took is read back, by a host that waits for no other if it sees one
    # late.
    facts = lambda: {"large_images": [large.run() for large in jobs]}
    made = hosts.on_first_host("what large images took", facts)
    images = {large.name: folder / f"{large.name}.png" for large in jobs}
    shown_ = lambda: shown.show(config, context.folders, "sample", images)
    hosts.on_first_host("pictures of large images", shown_)
    return made


def _say_costs(jobs: Sequence[render.LargeImageRender]) -> None:
    for planned in jobs:
        _LOG.info("dry run: %s would be %s", planned.name, planned.cost(timed=True))


def _write_page(
    path: pathlib.Path, model: generator.Generator, grid: arrays.EmbeddingGrid, number: int
) -> None:
    """Every cell of a reference's grid generated singly."""
    if path.exists():
        return
    seed = rng.seed_of(model.config.seed, "sample/patches", number)
    patches = model.sample_patches(grid.reshape(-1, grid.shape[-1]), seed=seed)
    page = patch_grid.mosaic(patches, grid.shape[1])
    scale = pyramid.Scale(model.mpp, bands=model.config.data.reading.multiband)
    pictures.write(path.parent, path.stem, page, scale)


def _write_variations(
    path: pathlib.Path, model: generator.Generator, reference: artifacts.Reference
) -> None:
    """Patches of a reference, each beside some of its embedding."""
    if not path.exists():
        count, each = model.config.sample.num_variations, amounts.VARIATIONS_EACH
        pyramid.write_png(path, references_lib.page(model, reference, count, each))


def _render(
    model: generator.Generator, folder: pathlib.Path, reference: artifacts.Reference, number: int
) -> render.LargeImageRender:
    config, section = model.config, model.config.sample.output
    # What the evaluation reads.
    own = pictures.formats(config.data.reading.multiband)
    formats = (*own, *(name for name in section.formats if name not in own))
    seed = rng.seed_of(config.seed, "sample/image", number)
    image_plan = references_lib.plan_of(model, reference, seed=seed)
    bands = config.data.reading.multiband
    scale = pyramid.Scale(model.mpp, section.quality, ngff=section.ngff, bands=bands)
    name = f"image_{number}"
    return render.LargeImageRender(model.renderer, image_plan, folder, name, formats, scale)
