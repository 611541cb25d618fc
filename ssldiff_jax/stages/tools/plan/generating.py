"""The rows of a plan of steps that generate images, and of the one that evaluates them."""

import dataclasses
import pathlib
import tempfile

import numpy as np

from ssldiff_jax.core import estimates
from ssldiff_jax.evaluation.features import image_files
from ssldiff_jax.runs import amounts
from ssldiff_jax.slides import multiband, optional, pictures, pyramid
from ssldiff_jax.stages.evaluate import (
    denoising_loss,
    heard_conditions,
    protocol,
    regenerated,
    variation_spread,
)
from ssldiff_jax.stages.tools.plan import facts as facts_lib
from ssldiff_jax.stages.tools.plan import models, steps
from ssldiff_jax.stages.tools.plan.rows import Row, exact, guess

Facts = facts_lib.Facts
Estimate = estimates.Estimate

_RAW = 3  # bytes of a pixel
FILES = {"png": 0.7, "tif": 0.25, "ome.tif": 0.25, "cog.tif": 0.25, "dzi": 0.25,
         "ome.zarr": 0.53, "dcm": 0.25}  # fmt: skip
"""Parts of the raw pixels, where no real region was there to write."""
_LOSSLESS = 0.9  # of levels a third more than of pixels, which deflate makes smaller again


@dataclasses.dataclass(frozen=True)
class Image:
    """One large image.

    Attributes:
        windows: that the network evaluates, padding and guidance counted.
        asked: conditions that are asked for, padding counted.
        tiles: that are decoded.
        canvas: bytes between steps, on all devices.
        at_once: windows of a chunk.
    """

    windows: int
    asked: int
    tiles: int
    canvas: int
    at_once: int

    @classmethod
    def of(
        cls, networks: models.Networks, size: tuple[int, int], *, of_grid: bool = False
    ) -> "Image":
        """Of `size` px, from a reference or a grid."""
        model = networks.generator
        plan, sampler = model.planner.plan_windows(size, of_grid=of_grid), model.networks.sampler
        at_once = sampler.windows_at_once(plan)
        return cls(
            sampler.unet_forwards(plan),
            sampler.num_chunks(plan) * at_once,
            model.renderer.decoder_calls(plan),
            sampler.state_bytes(plan),
            at_once,
        )


def sample(facts: Facts) -> Row:
    """Large images of held-out regions, and single patches."""
    config, networks, known = facts.config, facts.networks, facts.known
    (rows, cols), section = facts.region_cells, config.sample
    image = Image.of(networks, facts.region_px, of_grid=section.conditioning != "dense")
    images = exact(0) if known.are_pages else known.regions
    cells = known.regions * (rows * cols)
    shown = min(section.num_variations, rows * cols) * amounts.VARIATIONS_EACH
    patches = _padded(facts, known.regions, rows * cols)
    patches += _padded(facts, exact(1), shown)
    windows = images * image.windows
    embedded = {networks.dtype: images * image.asked} if section.conditioning == "dense" else {}
    if not config.embeddings.source:
        # The reference's own grid is that of the step embeddings.
        embedded["float32"] = embedded.get("float32", exact(0)) + cells
    pixels = images * (facts.region_px[0] * facts.region_px[1])
    patch_px = (cells + exact(shown)) * config.data.crops.patch_px**2
    bands = config.data.reading.multiband
    formats = tuple(dict.fromkeys((*pictures.formats(bands), *section.output.formats)))
    parts = {name: _part_of_raw(facts, name) for name in formats}
    raw = {name: bands.kind.pixel_bytes if _has_all(bands, name) else _RAW for name in formats}
    writes = {f"images {name}": pixels * raw[name] * part for name, part in parts.items()}
    writes["single patches"] = patch_px * _RAW * parts["png"]
    here = memory_of(networks, image)
    return Row(
        {
            "large images": images,
            "UNet calls": windows,
            "decodes": images * image.tiles,
            "single patches": cells + exact(shown),
            "UNet calls for single patches": patches * networks.window_calls,
        },
        {},
        writes,
        {"program": steps.program()},
        here,
        work_of(facts, windows + patches * networks.window_calls, images * image.tiles, patches)
        | _embedded(facts, embedded),
    )


def _padded(facts: Facts, times: Estimate, count: int) -> Estimate:
    """Patches that are generated for `count` at a time, each time filled up to whole batches."""
    batch = facts.networks.generator.networks.window_batch
    size = -(-batch // facts.devices.count) * facts.devices.count
    return times * (-(-count // size) * size)


def _padded_blocks(facts: Facts, count: Estimate) -> Estimate:
    """Patches that are generated in blocks, each of which is filled up."""
    blocks, rest = divmod(round(count.value), regenerated.BLOCK)
    padded = _padded(facts, exact(blocks), regenerated.BLOCK) + _padded(facts, exact(1), rest)
    if count.is_exact:
        return padded
    return count * (padded.value / max(count.value, 1))


def _loss_calls(patches: Estimate) -> Estimate:
    """Patches whose loss is measured, at some timesteps each, in whole batches."""
    if patches.is_exact or patches.low >= denoising_loss.NUM_PATCHES:
        examples = min(patches.value, denoising_loss.NUM_PATCHES) * denoising_loss.NUM_TIMESTEPS
        return exact(-(-round(examples) // denoising_loss.BATCH) * denoising_loss.BATCH)
    return patches * denoising_loss.NUM_TIMESTEPS


def memory_of(networks: models.Networks, image: Image) -> dict[str, Estimate]:
    """Of a device that generates an image."""
    live = networks.chunk_bytes(image.at_once)
    return {
        "weights": exact(networks.window.params_bytes + networks.encode.params_bytes),
        "canvas": exact(image.canvas),
        "windows at once": guess(live, "results of products and convolutions alive at once", 0.3),
    }


def work_of(facts: Facts, windows: Estimate, tiles: Estimate, patches: Estimate) -> dict:
    """FLOPs of windows, and of the decoder's tiles and patches."""
    networks, dtype = facts.networks, facts.networks.dtype
    decoded = exact(0)
    if tiles.value:
        decoded += tiles * networks.decode_tile.flops
    if patches.value:
        decoded += patches * networks.decode_patch.flops
    return {
        f"flops denoise {dtype}": windows * networks.window.flops,
        f"flops decode {dtype}": decoded,
    }


def _embedded(facts: Facts, counts: dict[str, Estimate]) -> dict[str, Estimate]:
    """FLOPs of the encoder, by what it computes in."""
    return {
        f"flops forward {dtype}": count * facts.networks.embed("encoder").flops
        for dtype, count in counts.items()
        if count.value
    }


def _has_all(bands: multiband.MultibandConfig, name: str) -> bool:
    """Whether a format holds other bands than RGB, and there are any."""
    return bands.is_used and name in pyramid.OF_ALL_BANDS


def _part_of_raw(facts: Facts, name: str) -> Estimate:
    """Bytes of a file of a format, of those of its raw pixels."""
    picture = facts.known.picture
    if _has_all(facts.config.data.reading.multiband, name):
        return guess(_LOSSLESS, "all levels of all bands, without loss", 0.4)
    if picture is None or not optional.is_there(name):
        return guess(FILES[name], "H&E of the demo in this format", 0.5)
    with tempfile.TemporaryDirectory() as folder:
        scale = pyramid.Scale(facts.config.level_data.patch_mpp, facts.config.sample.output.quality)
        pyramid.FORMATS[name](pathlib.Path(folder) / f"picture.{name}", picture, scale)
        files = (path for path in pathlib.Path(folder).rglob("*") if path.is_file())
        size = sum(path.stat().st_size for path in files)
    return guess(size / picture.size, "a real region, written in this format", 0.5)


def evaluate(facts: Facts) -> Row:
    """Patches that are generated again, features and distances."""
    config, section, networks = facts.config, facts.config.evaluate, facts.networks
    has_encoder = not config.embeddings.source
    if not section.num_patches or not has_encoder:
        return Row({"patches regenerated": exact(0)}, host={"program": steps.program()})
    held_out = facts.at_most(section.num_patches, "test")
    training = facts.at_most(section.num_training, "train")
    every, padded = held_out, _padded_blocks(facts, held_out)
    for level in config.data.levels:
        if level != config.level:
            of_level = facts.at_level(section.num_patches, "test", level)
            every, padded = every + of_level, padded + _padded_blocks(facts, of_level)
    windows = padded * networks.window_calls
    compared = _loss_calls(held_out) + _loss_calls(training)
    embeddings = variation_spread.num_embeddings(round(held_out.value))
    varied = _padded(facts, exact(1), embeddings * variation_spread.VARIATIONS)
    variations = varied * networks.window_calls
    own = {name: getattr(config, name).architecture.dim for name in protocol.OWN}
    features = every * (2 * _FLOAT * sum(own.values())) + training * (_FLOAT * own["judge"])
    examples, more = _examples(facts, training)
    cell_dim = config.denoiser_sizes(networks.embedding_dim).cell_dim
    features += examples * (_FLOAT * (own["judge"] * more + cell_dim))
    px, of_file = (
        config.data.crops.patch_px,
        image_files.Format(section.jpeg_quality, config.data.reading.multiband.is_used),
    )
    part = _part_of_patch(facts, of_file)
    judged = every * 2 + training + examples * more + exact(varied.value)
    looked_at = judged * networks.embed("judge").flops
    looked_at += (every * 3 + examples) * networks.embed("encoder").flops
    raw = config.data.reading.multiband.kind.pixel_bytes
    return Row(
        {
            "patches regenerated": every,
            "UNet calls": windows,
            "UNet calls for losses": compared,
            "UNet calls for variations": variations,
            "training patches searched": training,
            "networks": exact(len(own) + len(section.networks)),
        },
        {"records": (every + training) * facts.known.record_bytes},
        {
            "patches real and generated": every * (2 * raw * px**2) * part,
            "features": features,
        },
        {"program": steps.program(), "features": features},
        {"weights": exact(networks.window.params_bytes + networks.encode.params_bytes)},
        work_of(facts, windows + compared + variations, exact(0), padded + varied)
        | {
            "flops forward float32": looked_at,
            "pixels decoded": (every * 3 + training) * config.data.records.record_px**2,
        },
    )


def _examples(facts: Facts, training: Estimate) -> tuple[Estimate, int]:
    """Training patches that held-out ones are compared with, and whether (1) or not (0) these are
    others than those that are searched for copies."""
    if training.value <= protocol.EXAMPLES:
        return training, 0
    return facts.at_most(protocol.EXAMPLES, "train"), 1


_FLOAT = 4


def _part_of_patch(facts: Facts, file_format: image_files.Format) -> Estimate:
    """Bytes of a patch's file, of those of its raw pixels."""
    picture, px = facts.known.picture, facts.config.data.crops.patch_px
    if picture is None or min(picture.shape[:2]) < px:
        return guess(FILES["png"], "H&E of the demo in this format", 0.5)
    size = len(file_format.encode(np.ascontiguousarray(picture[:px, :px])))
    return guess(size / (_RAW * px**2), "a real patch, written in this format", 0.5)


def prior(facts: Facts) -> Row:
    """The prior's training, and grids that are sampled to judge it."""
    row = steps.prior(facts)
    if not row.counts:
        return row
    section = facts.config.prior
    sampled = min(amounts.PRIOR_COMPARED, section.grids.count_test)
    has_texts = facts.condition_spec.labels and facts.condition_spec.text_phrases
    ways = 3 if has_texts else 2
    work = {"flops prior float32": exact(sampled * ways * facts.grid_flops)}
    return dataclasses.replace(row, work={**row.work, **work})


def tokens(facts: Facts) -> Row:
    """The training of the second level, and tokens that are sampled to judge it."""
    row = steps.tokens(facts)
    if not row.counts:
        return row
    held_out = facts.at_most(amounts.PRIOR_COMPARED, "test")
    # From their own embeddings, and from those of others.
    work = {"flops tokens float32": held_out * (2 * facts.cell_flops)}
    return dataclasses.replace(row, work={**row.work, **work})


def imagine(facts: Facts) -> Row:
    """Images of the prior's grids."""
    config, networks = facts.config, facts.networks
    if config.embeddings.source:
        return Row()
    count = min(max(config.imagine.count, amounts.IMAGINED_SHOWN), config.prior.grids.count_test)
    spec, sources = facts.condition_spec, config.prior.conditions
    given = {"labels": spec.labels, "numbers": spec.numbers, "text": spec.text_phrases}
    kinds = [kind for kind, names in given.items() if names]
    ways = 1 + len(heard_conditions.alone(sources, kinds)) * bool(config.imagine.count)
    side = facts.grid_side * config.data.crops.patch_px
    image, images = Image.of(networks, (side, side), of_grid=True), exact(count * ways)
    shown = exact(min(count, amounts.IMAGINED_SHOWN) * side**2 * _RAW)
    return Row(
        {
            "images": images,
            "UNet calls": images * image.windows,
            "decodes": images * image.tiles,
        },
        {},
        {"images shown": shown * _part_of_raw(facts, "png")},
        {"program": steps.program()},
        memory_of(networks, image),
        work_of(facts, images * image.windows, images * image.tiles, exact(0))
        | {"flops prior float32": images * facts.grid_flops}
        | _tokens_flops(facts, images),
    )


def _tokens_flops(facts: Facts, images: Estimate) -> dict[str, Estimate]:
    """Of the tokens of grids of the prior, none where a cell has one."""
    if not facts.cell_flops:
        return {}
    side = facts.grid_side
    # Windows that move reach one cell beyond the grid.
    moves = facts.config.tokens.max_offset and side > 1
    windows = (side + 1) ** 2 if moves else side**2
    return {"flops tokens float32": images * (windows * facts.cell_flops)}


def report(facts: Facts) -> Row:
    """The page of what is there."""
    return Row({"pages": exact(1)}, host={"program": steps.program()})
