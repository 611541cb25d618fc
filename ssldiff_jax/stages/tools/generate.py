"""Tool `generate`: one large image of any size, from a slide, an image or a grid of embeddings."""

import dataclasses
import logging
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from ssldiff_jax.core import arrays, names
from ssldiff_jax.generation import (
    areas,
    cell_files,
    generator,
    grid_edits,
    init_images,
    placed,
    plan,
    prior_sampler,
    render,
    sources,
    two_scales,
    user_images,
)
from ssldiff_jax.runs import published_models, stage
from ssldiff_jax.runs.config import prior as prior_config
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.runs.config import tools as tools_config
from ssldiff_jax.sampler import grid as grid_lib
from ssldiff_jax.slides import optional, pictures, pyramid

_LOG = logging.getLogger(__name__)


def run(context: stage.Context) -> dict[str, Any] | None:
    """Write `image.tif` and the other formats, `cells.geojson` where there is a reference cell by
    cell, and `grid.npy` where the prior samples the grid.

    Raises SlideError for a reference that is no image, ValueError for what does not fit it.
    """
    config, folder = context.config, context.folder("generate")
    section, output = config.generate, config.sample.output
    if not section.reference and not section.prior.is_grid:
        context.artifacts.require_references("generate.reference")
    model = generator.Generator.of_run(context.artifacts, context.mesh)
    if section.strength < 1:
        model = model.with_sample(model.config.sample.at_strength(section.strength))
    placed.require_bounds(section, model)
    if section.area:
        section = areas.with_region(section, model.reading_data)
        config = dataclasses.replace(config, generate=section)
    artifacts = dataclasses.replace(context.artifacts, config=config)
    if section.prior.is_grid:
        source = sources.Source.of_prior(model, section, config.seed)
        folder.mkdir(parents=True, exist_ok=True)
        # Kept, so that the same grid can be given again, or edited.
        np.save(folder / "grid.npy", source.grid)
    elif section.reference:
        source = sources.Source.open(model, section)
    else:
        source = sources.Source.of_run(context.artifacts.with_references, model)
    placed.require_alone(section, source)
    origin = placed.Origin.of(config, context.workdir)
    coarse = None
    if section.held_to:
        coarse = user_images.read_pixels(config.data, section.held_to)
    elif section.coarse.is_asked:
        scale = two_scales.CoarseScale.of(section.coarse, model, context.mesh)
        # Of what is read, which may be of a finer level than the image.
        whole = two_scales.whole(source.size, scale.factor * model.planner.finest.ratio)
        source = dataclasses.replace(source, size=whole)
        coarse = _generated_first(scale, config, source, folder, origin)
    image_plan = _plan(section, model, source, seed=config.seed)
    if section.control:
        control = user_images.read_mask(section.control)
        image_plan = model.planner.with_control(image_plan, control)
    if coarse is not None:
        name = section.held_to or f"what {section.coarse.models or 'the coarse scale'} generated"
        image_plan = model.planner.held_to(image_plan, coarse, name)
    georeference = placed.georeference(
        section, model, source, image_plan.size, grow=section.outpaint_px
    )
    bands = config.data.reading.multiband
    scale = pyramid.Scale(model.mpp, output.quality, georeference, output.ngff, bands)
    large = render.LargeImageRender(
        model.renderer, image_plan, folder, "image", output.formats, scale
    )
    if config.sample.dry_run:
        _LOG.info("dry run: %s would be %s", large.name, large.cost(timed=True))
        return None
    beside = cell_files.CellFiles.of_request(artifacts, model, source, image_plan.size, folder)
    facts = large.run(beside and beside.write)
    placed.write_item(folder, large.name, image_plan.size, scale, origin)
    return facts


def _generated_first(
    scale: two_scales.CoarseScale,
    config: run_config.RunConfig,
    source: sources.Source,
    folder: pathlib.Path,
    origin: placed.Origin,
) -> arrays.Pixels:
    """The coarse image of what is generated from a source; a blank one of its size where nothing
    shall be generated."""
    section, model, seed = config.generate, scale.model, two_scales.seed_of(config.seed)
    asked = dataclasses.replace(
        section,
        size=scale.size_of(section.size),
        region=scale.read_of(section.region, "region"),
        # As the fine models took the file: theirs may have another mpp for files that have none.
        mpp=source.native_mpp,
    )
    if section.prior.is_grid:
        own = sources.Source.of_prior(model, asked, seed)
    elif section.reference:
        # Read at the scale that the coarse models know.
        own = sources.Source.open(model, asked)
        own = dataclasses.replace(own, size=scale.read_of(source.size, "region"))
    else:
        own = source.shrunk(scale.reads)
    image_plan = _plan(asked, model, own, seed=seed)
    place = placed.georeference(asked, model, own, image_plan.size, grow=0)
    large = scale.render(image_plan, folder, config.sample.output, place)
    if config.sample.dry_run:
        _LOG.info("dry run: %s would be %s", large.name, large.cost(timed=True))
        kind = model.networks.kind
        return np.zeros((*image_plan.size, kind.count), kind.dtype)
    large.run()
    placed.write_item(folder, large.name, image_plan.size, large.scale, origin)
    return pictures.read(folder, large.name, config.data.reading.multiband)


def slug(config: run_config.RunConfig) -> str:
    """The default name of an image: its reference or request, size, level and seed."""
    section = config.generate
    request = " ".join((section.prior.text, *section.prior.labels, *section.prior.numbers))
    words = request.strip() or "anything" if section.prior.is_grid else "held-out"
    if section.reference:
        words = pathlib.Path(section.reference).stem
    if section.control:
        words = f"{words} {pathlib.Path(section.control).stem}"
    region, size = "-".join(map(str, section.region)), "x".join(map(str, section.size))
    region = areas.words_of(section.area) if section.area else region
    grown = f"outpaint{section.outpaint_px}" if section.outpaint_px else ""
    level = "" if config.level == config.data.levels[0] else f"level{config.level:g}"
    held = f"held-to-{pathlib.Path(section.held_to).stem}" if section.held_to else ""
    scales = "two-scales" if section.coarse.is_asked else ""
    return names.slug(words, region, size, grown, held, scales, level, f"seed{config.seed}")


def fingerprint(config: run_config.RunConfig) -> dict[str, Any]:
    """Size and time of every file that is generated from.

    Raises WeightsError for one that is not there, ValueError where a library is not that what is
    generated is written with.
    """
    section = config.generate
    optional.require((*config.sample.output.formats, *section.cells))
    keys = ("reference", "mask", "control", "blend_with", "held_to", "area")
    # Without the name of a feature in it.
    paths = {key: areas.file_of(getattr(section, key)) for key in keys}
    named = {key: f"generate.{key}" for key in paths}
    for edit in section.edits:
        if file := grid_edits.source_file(edit):
            paths[edit] = file
    noted = {
        key: user_images.fingerprint(path, named.get(key, "generate.edits"))
        for key, path in paths.items()
        if path
    }
    if section.coarse.models:
        noted["coarse"] = two_scales.fingerprint(section.coarse.models)
    return noted | published_models.files(config)


def ending(folder: pathlib.Path, facts: Mapping[str, Any]) -> list[str]:
    """Size and path of the image, in every format."""
    size = f"{facts['height']} × {facts['width']} px"
    files = (folder / f"image.{name}" for name in pyramid.FORMATS)
    return [f"{size} in {file}" for file in files if file.exists()]


def _plan(
    section: tools_config.GenerateSection,
    model: generator.Generator,
    source: sources.Source,
    *,
    seed: int,
) -> plan.ImagePlan:
    own = model.planner.finest.size_of(source.size)
    from_pixels = section.mask or section.outpaint_px or section.strength != 1
    if from_pixels and model.planner.finest.ratio > 1:
        raise ValueError(
            "generate.mask, outpaint_px and strength need the pixels of the image's own level, got "
            f"config.sample.level={model.level:g} and a reference of level 1"
        )
    size = tuple(section.size) or own
    if section.outpaint_px:
        size = tuple(length + 2 * section.outpaint_px for length in size)
    changes_grid = bool(section.blend_with or section.edits)
    # Only an unchanged reference has pixels at the place of every window.
    if source.read is None or changes_grid or size != own:
        image_plan = _of_grid(section, model, source, size, seed=seed)
    else:
        image_plan = model.planner.from_reference(source.read, source.size, seed=seed)
    if section.strength == 1 and not section.mask and not section.outpaint_px:
        return image_plan
    image = init_images.of(section, source, size, model.reading_data)
    return model.planner.with_init_image(image_plan, image)


def _of_grid(section, model: generator.Generator, source: sources.Source, size, *, seed: int):
    grid = source.grid
    if grid is None:
        grid = model.planner.embed_all(source.read, source.size)
    # Edits, and cells of the prior, are of as many tokens as the grid.
    grid = model.finer(grid, seed=seed)
    if section.blend_with:
        other = model.finer(grid_edits.open_grid(section.blend_with, model), seed=seed)
        if other.shape != grid.shape:
            raise ValueError(
                f"generate.blend_with must have the cells of the reference, {grid.shape}, got "
                f"{other.shape}"
            )
        num_tokens = grid.shape[2] // model.trained.denoiser.config.embedding_dim
        grid = grid_lib.blended(grid, other, section.blend_amount, num_tokens)
    keep = np.ones(grid.shape[:2], bool)
    for edit in section.edits:
        grid, keep = grid_edits.edited(grid, keep, edit, model)
    if section.outpaint_px:
        cells = section.outpaint_px // model.patch_px
        if section.outpaint_px % model.patch_px:
            raise ValueError(
                f"generate.outpaint_px must be whole cells of {model.patch_px} px, got "
                f"{section.outpaint_px}"
            )
        # The outermost cells, where nothing else is asked for.
        grid = np.pad(grid, ((cells, cells), (cells, cells), (0, 0)), "edge")
        keep = np.pad(keep, cells, constant_values=section.prior.beyond == "edge")
    if not keep.all():
        grid = _completed(section.prior, model, grid, keep, seed=seed)
    # Cells that cross the border of the reference end beyond that of the image.
    finest = model.planner.finest
    stretch = (
        new / (old + 2 * section.outpaint_px)
        for new, old in zip(size, finest.size_of(source.size), strict=True)
    )
    spans = tuple(n * model.patch_px * s for n, s in zip(grid.shape[:2], stretch, strict=True))
    spans = finest.spans_of(spans) if finest.takes(grid) else spans
    return model.plan_from_grid(grid, size=size, spans=spans, seed=seed)


def _completed(
    section: prior_config.PriorRequestConfig, model: generator.Generator, grid, keep, *, seed: int
) -> arrays.EmbeddingGrid:
    """The grid, its cells outside `keep` sampled by the prior."""
    numbers, labels = (prior_config.named_values(p) for p in (section.numbers, section.labels))
    request = prior_sampler.PriorRequest(section.text, labels, numbers)
    model.require_finer()
    known = grid_edits.one_embedding_each(grid, model)
    sampled = model.prior.sample(
        request, keep.shape, seed=seed, temperature=section.temperature, known=known, keep_mask=keep
    )
    finer = model.finer(sampled, seed=seed, known=grid, keep_mask=keep)
    return np.where(keep[..., None], grid, finer)
