"""The rows of a plan of steps that read, cut, encode and train; those that generate are in
`generating.py`."""

import dataclasses
import pathlib

from ssldiff_jax.core import estimates
from ssldiff_jax.data import named_slides, patch_list, store
from ssldiff_jax.formats import shards
from ssldiff_jax.runs import amounts
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.slides import remote
from ssldiff_jax.stages.tools.plan import facts as facts_lib
from ssldiff_jax.stages.tools.plan.rows import Row, exact, guess

_PROGRAM = 1.1e9
_TILING = 63 * 2**20
_DECODED = 1024  # records that a process keeps as pixels
_HALF, _FLOAT = 2, 4
_NPZ = 752

Facts = facts_lib.Facts
Estimate = estimates.Estimate


def program() -> Estimate:
    """Memory of the process itself."""
    return guess(_PROGRAM, "0.9 to 1.4 GB in runs of the demo on two CPU cores", 0.3)


def patches(facts: Facts) -> Row:
    """Slides, or patches of a list, to records."""
    census, data = facts.known, facts.config.data
    is_list = patch_list.is_list(data.slides)
    usable = exact(census.named) + census.unusable * -1
    unit = "patches named" if census.are_pages else "slides"
    counts = {unit: exact(census.named), "unusable": census.unusable}
    counts |= {f"records {split}": number for split, number in census.records.items()}
    counts["regions"] = census.regions
    every = estimates.total(census.records.values())
    processes = data.engine.processes or facts.devices.cores
    picture = census.picture.size / 2 if census.picture is not None else 0.0
    return Row(
        counts,
        reads={} if is_list else {"slides": _slide_bytes(facts.config)},
        writes={
            "records": census.stored,
            "region pictures": guess(picture, "half of the pixels of one") * census.regions,
        },
        host={"program": program(), "tiling": exact(processes * _TILING)},
        work={"pixels cut": every * data.records.record_px**2, "files": usable},
    )


def _slide_bytes(config: run_config.RunConfig) -> Estimate:
    """Each is read whole, to know copies by its content."""
    paths = [s for s in named_slides.sources(config.data) if not remote.is_remote(s)]
    sizes = (pathlib.Path(path).stat().st_size for path in paths if pathlib.Path(path).exists())
    return guess(sum(sizes), "each file once; its tissue is read a second time")


def training(facts: Facts, name: str) -> Row:
    """A training: of batches of crops, or of what is stored."""
    config, section = facts.config, getattr(facts.config, name)
    train = section.train
    if not train.num_steps:
        return _published(facts, name)
    cost = facts.training(name)
    examples = exact(train.num_steps * train.batch_size)
    kept = min(-(-train.num_steps // train.checkpoint_every), 2)
    saved = facts_lib.checkpoint_bytes(cost.leaves, cost.state_bytes)
    reads, work = _fed(facts, name, examples)
    live = guess(
        cost.live_bytes,
        "results of products and convolutions alive at once; XLA for an H200 took 7 % more for the "
        "published UNet",
        0.2,
    )
    here = {"state": exact(cost.device_state_bytes), "gradient": live}
    host = {"program": program(), "records": exact(_kept_pixels(config))}
    step = f"flops train {train.compute.dtype}"
    return Row(
        {
            "steps": exact(train.num_steps),
            "examples": examples,
            "parameters": exact(cost.num_params),
            "checkpoints kept": exact(kept),
        },
        reads,
        {"checkpoints": saved * kept},
        host,
        here,
        {step: exact(cost.step_flops * train.num_steps), **work},
    )


def _fed(facts: Facts, name: str, examples: Estimate) -> tuple[dict, dict]:
    """What a training reads, and what that takes."""
    config = facts.config
    if name == "tokens":
        return {"embeddings": examples * facts.networks.condition_bytes}, {}
    if name in ("denoiser", "distill"):
        each = facts.networks.condition_bytes + _moments_bytes(config)
        return {"embeddings and latents": examples * each}, {}
    if name == "prior":
        return {"grids": examples * _grid_bytes(facts)}, {}
    px = config.data.records.record_px
    return (
        {"records": examples * facts.known.record_bytes} if facts.census else {},
        {"pixels decoded": examples * px**2},
    )


def _kept_pixels(config: run_config.RunConfig) -> int:
    """Bytes of decoded records and of batches that are kept ready, at the most."""
    data, pixel = config.data, config.data.reading.multiband.kind.pixel_bytes
    return (_DECODED + data.loader.prefetch) * data.records.record_px**2 * pixel


def _published(facts: Facts, name: str) -> Row:
    """Weights that are taken as they are."""
    networks = facts.networks
    if name == "autoencoder":
        size = networks.encode.params_bytes
    elif name == "denoiser":
        size = networks.window.params_bytes
    else:
        size = networks.embed(name).params_bytes
    saved = guess(size * facts_lib.PACKED, "weights, compressed by Zstandard", 0.15)
    path = pathlib.Path(getattr(facts.config, name).weights).expanduser()
    there = exact(path.stat().st_size) if path.is_file() else guess(size, "its parameters")
    return Row(
        {"steps": exact(0), "parameters": exact(size // _FLOAT)},
        {"weights": there},
        {"checkpoints": saved},
        {"program": program(), "weights": exact(2 * size)},
    )


def encoder(facts: Facts) -> Row:
    """The encoder; none where embeddings were computed elsewhere."""
    return Row() if facts.config.embeddings.source else training(facts, "encoder")


def judge(facts: Facts) -> Row:
    """The judge."""
    return training(facts, "judge")


def embeddings(facts: Facts) -> Row:
    """One condition for each crop."""
    config, networks, count = facts.config, facts.networks, facts.crops
    imported = bool(config.embeddings.source)
    size = networks.condition_bytes
    writes = {"embeddings": _stored(count, size, store.SHARD_SIZE)}
    if imported:
        return Row(
            {"embeddings": count},
            {"embeddings": count * size},
            writes,
            {"program": program()},
        )
    call = networks.embed("encoder")
    return Row(
        {"embeddings": count, "patches embedded": count * config.num_cells},
        {"records": count * facts.known.record_bytes} if facts.census else {},
        writes,
        {"program": program()},
        {"weights": exact(call.params_bytes)},
        {
            "flops forward float32": count * (call.flops * config.num_cells),
            "pixels decoded": count * config.data.records.record_px**2,
        },
    )


def autoencoder(facts: Facts) -> Row:
    """The autoencoder."""
    return training(facts, "autoencoder")


def _moments_bytes(config: run_config.RunConfig) -> int:
    return config.window**2 * config.autoencoder.model.num_stored * _HALF


def latents(facts: Facts) -> Row:
    """The moments of each crop."""
    config, count, call = facts.config, facts.crops, facts.networks.encode
    return Row(
        {"latents": count},
        {"records": count * facts.known.record_bytes} if facts.census else {},
        {"latents": _stored(count, _moments_bytes(config), store.SHARD_SIZE)},
        {"program": program()},
        {"weights": exact(call.params_bytes)},
        {
            "flops forward float32": count * call.flops,
            "pixels decoded": count * config.data.records.record_px**2,
        },
    )


def denoiser(facts: Facts) -> Row:
    """The denoiser."""
    return training(facts, "denoiser")


def distill(facts: Facts) -> Row:
    """The denoiser's student; none where no visits are asked for."""
    return training(facts, "distill") if facts.config.distill.visits else Row()


def _grid_bytes(facts: Facts) -> int:
    side, dim = facts.grid_side, facts.networks.embedding_dim
    return (side**2 * dim + facts.condition_spec.dim) * _HALF


def grids(facts: Facts) -> Row:
    """Grids of neighbours' embeddings; as if records lay side by side for every one."""
    config = facts.config
    if config.embeddings.source:
        return Row()
    section, call = config.prior.grids, facts.networks.embed("encoder")
    source = "as if records were found side by side for each"
    train, test = (guess(count, source) for count in (section.count, section.count_test))
    cells = (train + test) * facts.grid_side**2
    each, dim = _grid_bytes(facts), facts.networks.embedding_dim
    # Mean, matrix and its inverse, each with a header.
    whitening = exact(_FLOAT * (2 * dim**2 + dim) + _NPZ)
    stored = lambda count: _stored(count, each, amounts.GRIDS_OF_SHARD)
    return Row(
        {"grids train": train, "grids test": test, "patches embedded": cells},
        {"records": cells * facts.known.record_bytes},
        {"grids train": stored(train), "grids test": stored(test), "whitening": whitening},
        {"program": program()},
        {"weights": exact(call.params_bytes)},
        {
            "flops forward float32": cells * call.flops,
            "pixels decoded": cells * config.data.records.record_px**2,
        },
    )


def prior(facts: Facts) -> Row:
    """The prior; none where embeddings were computed elsewhere."""
    return Row() if facts.config.embeddings.source else training(facts, "prior")


def tokens(facts: Facts) -> Row:
    """The second level of the prior; none where a cell has one token."""
    if facts.config.embeddings.tokens_per_side == 1:
        return Row()
    row, dim = training(facts, "tokens"), facts.networks.embedding_dim
    # Of tokens and of embeddings: mean, matrix and its inverse, each with a header.
    whitening = exact(2 * (_FLOAT * (2 * dim**2 + dim) + _NPZ))
    return dataclasses.replace(row, writes={**row.writes, "whitening": whitening})


def _stored(count: Estimate, size: int, shard_size: int) -> Estimate:
    """Bytes of an array store."""
    files = lambda number: float(shards.store_bytes(round(number), size, shard_size))
    if count.is_exact:
        return exact(files(count.value))
    low, high = (files(n) if n == n else n for n in (count.low, count.high))
    return Estimate(files(count.value), count.source, low, high)
