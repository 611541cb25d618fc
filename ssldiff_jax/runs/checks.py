"""What can be known before the first stage is refused before it, all of it together."""

import dataclasses
import functools
import pathlib
import shutil
from collections.abc import Callable, Iterator

import jax
from jax.sharding import AbstractMesh, Mesh

from ssldiff_jax.core import memory, schema
from ssldiff_jax.data.annotations import case_tables
from ssldiff_jax.formats import atomic, hub
from ssldiff_jax.runs import (
    artifacts,
    batches,
    level_crops,
    marked_classes,
    programs,
    runner,
    stage,
    table_changes,
)
from ssldiff_jax.runs.command import shortage
from ssldiff_jax.runs.config import prior as prior_config
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.runs.workdir import folders as folders_lib
from ssldiff_jax.slides import remote
from ssldiff_jax.train import loop
from ssldiff_jax.train import mesh as mesh_lib
from ssldiff_jax.train import step as step_lib

TRAINED = ("encoder", "autoencoder", "denoiser", "distill", "judge", "prior", "tokens")
"""Stages that train a model, in the order of the table."""


class RefusedError(ValueError):
    """Reasons why a run cannot end well, a line each."""


def check(table: stage.Table, context: stage.Context, chosen: list[str], force: set[str]) -> None:
    """Refuse what the chosen stages would refuse later, before anything is written.

    Raises what the only reason raises, or RefusedError with all of them.
    """
    errors = errors_of(Plan.of(table, context, chosen, force), context, force)
    # What two checks come upon is said once.
    reasons = list(dict.fromkeys(str(error) for error in errors))
    if len(reasons) == 1:
        raise errors[0]
    if reasons:
        raise RefusedError("\n".join(reasons))


def errors_of(plan: "Plan", context: stage.Context, force: set[str]) -> list[Exception]:
    """Every reason why what is to be done would be refused, each as it would be raised."""
    errors: list[Exception] = []
    _note(errors, lambda: runner.check(plan.table, context, list(plan.chosen), force))
    for find in (
        _cases, _levels, _marked, _batches, _compiled, _method, _files, _tables, _requests, _memory,
        _disk,
    ):  # fmt: skip
        # A check that cannot be made is a reason itself, and does not hide those of others.
        _note(errors, lambda f=find: errors.extend(map(RefusedError, f(plan))))
    return errors


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is to be done.

    Attributes:
        chosen: the stages that are asked for.
        stages: those that are not done yet or are run again, in order.
        fresh: those of which nothing is written yet.
        elsewhere: memory of a device that is not here, bytes; None for the devices at hand.
    """

    table: stage.Table
    config: run_config.RunConfig
    folders: folders_lib.Folders
    mesh: Mesh | AbstractMesh
    chosen: tuple[str, ...]
    stages: tuple[str, ...]
    fresh: frozenset[str]
    elsewhere: int | None = None

    @classmethod
    def of(
        cls, table: stage.Table, context: stage.Context, chosen: list[str], force: set[str]
    ) -> "Plan":
        """By what the work directory holds."""
        is_forced = lambda name: name in force or table[name].always
        folders = context.folders
        stages = tuple(n for n in table if n in chosen and (is_forced(n) or not folders.is_done(n)))
        fresh = frozenset(n for n in stages if is_forced(n) or not folders.of_stage(n).exists())
        return cls(table, context.config, folders, context.mesh, tuple(chosen), stages, fresh)

    @property
    def trainings(self) -> dict[str, loop.TrainConfig]:
        """Those of the stages that take steps, by stage."""
        config = self.config
        # Neither is trained where embeddings come from elsewhere.
        left_out = ("encoder", "prior") if config.embeddings.source else ()
        if config.embeddings.tokens_per_side == 1:
            left_out += ("tokens",)
        if not config.distill.visits:
            left_out += ("distill",)
        configs = {n: getattr(config, n).train for n in TRAINED if n in self.stages}
        return {n: train for n, train in configs.items() if train.num_steps and n not in left_out}

    @functools.cached_property
    def states(self) -> dict[str, step_lib.TrainState]:
        """Shapes of what the trainings read and write at every step."""
        return {name: programs.state(name, self.config) for name in self.trainings}


def _note(errors: list[Exception], check_: Callable[[], object]) -> None:
    try:
        check_()
    except (ValueError, OSError) as error:
        errors.append(error)


def _reasons(checks: Iterator[Callable[[], object]]) -> Iterator[str]:
    errors: list[Exception] = []
    for check_ in checks:
        _note(errors, check_)
    yield from map(str, errors)


def _cases(plan: Plan) -> Iterator[str]:
    """Names of slides that have no cases to hold out; polygons that no key takes; a table of slides
    that changed since."""
    data = plan.config.data
    if "patches" not in plan.stages or not data.slides:
        yield from table_changes.found(plan.config, plan.folders) if plan.stages else ()
        return
    # Not at the top: a machine that only computes can open no slides.
    from ssldiff_jax.data import patch_list, slide_source

    if patch_list.is_list(data.slides):
        return  # lists are small, and cut first
    for check_ in (slide_source.cases_of, slide_source.require_purpose):
        try:
            check_(data)
        except schema.ConfigError as error:
            yield str(error)
        except (ValueError, OSError):
            return  # slides that cannot be found: the runner reports them


def _levels(plan: Plan) -> Iterator[str]:
    return level_crops.untrainable(plan.config, plan.stages)


def _marked(plan: Plan) -> Iterator[str]:
    return marked_classes.missing(plan.config, plan.stages)


def _batches(plan: Plan) -> Iterator[str]:
    return batches.uneven(_measured(plan), plan.mesh.shape["data"] * plan.mesh.shape["fsdp"])


def _compiled(plan: Plan) -> Iterator[str]:
    return batches.uneven_compiled(plan.config) if "compile" in plan.stages else iter(())


def _measured(plan: Plan) -> dict[str, loop.TrainConfig]:
    """Trainings, and steps that the tool bench measures."""
    bench, configs = plan.config.bench, plan.trainings
    if "bench" in plan.stages and "training" in bench.parts and 0 in bench.batch_size:
        configs |= {name: getattr(plan.config, name).train for name in bench.train}
    return configs


def _method(plan: Plan) -> Iterator[str]:
    mesh = plan.mesh
    is_one = plan.elsewhere is not None or (
        jax.process_count() == 1 and mesh.size == jax.local_device_count()
    )
    for name, train in plan.trainings.items():
        if train.method == "pmap" and not (is_one and mesh.shape["model"] == 1):
            yield (
                f"config.{name}.train.method=pmap must have one process and all of its devices "
                f"along data and fsdp, got {jax.process_count()} processes and a mesh of "
                f"{dict(mesh.shape)}"
            )


def _files(plan: Plan) -> Iterator[str]:
    """Files that are named and are not there, and packages."""
    config = plan.config
    yield from config.logging.missing() if plan.trainings else ()
    # The runner has looked for slides, of which there may be very many.
    names = (name for name in plan.stages if name != "patches")
    yield from _reasons(lambda n=name: plan.table[n].inputs(config) for name in names)
    for key, path in _named_files(plan):
        if hub.is_address(path):
            yield from _reasons(iter([lambda p=path: hub.local(p)]))
        elif path and not remote.is_remote(path) and not pathlib.Path(path).expanduser().exists():
            yield f"config.{key} must name a file or folder, got {path}: no such file"


def _named_files(plan: Plan) -> Iterator[tuple[str, str]]:
    config, loss = plan.config, plan.config.autoencoder.loss
    if "autoencoder" in plan.trainings and loss.perceptual_weight and loss.perceptual == "lpips":
        for part in loss.lpips_weights.split(",") if loss.lpips_weights else [""]:
            yield "autoencoder.loss.lpips_weights", part.strip() or "''"
    if "grids" in plan.stages and "prior" in plan.trainings:
        yield "prior.conditions.text_encoder", config.prior.conditions.text_encoder
    if "patches" in plan.stages:
        yield "embeddings.corners", config.embeddings.corners
    if "report" in plan.stages:
        yield from (("report.compare", path) for path in config.report.compare)


def _tables(plan: Plan) -> Iterator[str]:
    """Tables of cases without the columns that are read."""
    sources, study = plan.config.prior.conditions, plan.config.study
    tables: list[tuple[str, tuple[str, ...]]] = []
    if "grids" in plan.stages:
        tables += [(sources.labels, ("label",)), (sources.numbers, ())]
        if sources.captions not in ("measured", "images"):
            tables += [(sources.captions, ("caption",))]
    if "study" in plan.stages and "bags" in study.tasks and study.bags.of == "slides":
        tables += [(study.bags.labels, ("label",))]
        if not study.bags.labels:
            yield "config.study.bags.labels must name a CSV file (case, label), got ''"
    yield from _reasons(
        lambda p=path, c=columns: case_tables.require_columns(p, c)
        for path, columns in tables
        if path and pathlib.Path(path).expanduser().exists()
    )


def _requests(plan: Plan) -> Iterator[str]:
    """Requests that the prior was not trained for, as far as its own condition spec shows."""
    request, grids = plan.config.generate.prior, plan.folders.of_stage("grids")
    if "generate" not in plan.stages or not request.is_grid:
        return
    if not plan.config.generate.size or plan.config.generate.reference:
        yield (
            "config.generate.prior must come with config.generate.size=(height,width) and no "
            f"generate.reference, got size={plan.config.generate.size} and "
            f"reference={plan.config.generate.reference!r}"
        )
    if (grids / "spec.json").exists():
        spec = artifacts.condition_spec(atomic.read_json(grids / "spec.json")["spec"])
        values = prior_config.named_values
        yield from _reasons(
            check_
            for check_ in (
                lambda: spec.label_values(values(request.labels)),
                lambda: spec.number_values(values(request.numbers)),
            )
        )


def _memory(plan: Plan) -> Iterator[str]:
    """States that are larger than a device: a lower bound, since what a step needs beside its
    state is not counted."""
    mesh, rules = plan.mesh, plan.config.mesh.rules
    # Shapes alone: a state that does not fit is known without making it.
    most = device_bytes(mesh) if plan.elsewhere is None else plan.elsewhere
    for name, state in plan.states.items():
        shardings = mesh_lib.tree_shardings(state, mesh, rules)
        each = sum(jax.tree.leaves(jax.tree.map(_shard_bytes, state, shardings)))
        if each > most:
            yield (
                f"stage {name}: the state of its training must fit the {most / 1e9:.1f} GB of a "
                f"device, got {each / 1e9:.1f} GB on each of {mesh.size}; --config.mesh.fsdp="
                f"{mesh.shape['data'] * mesh.shape['fsdp']} splits it over all"
            )


def _disk(plan: Plan) -> Iterator[str]:
    """A workdir without room for the last checkpoints, latents and embeddings."""
    workdir, needed = plan.folders.workdir, _stored_bytes(plan)
    if not plan.folders.bucket:
        # A training that was begun has its room already.
        states = (s for name, s in plan.states.items() if name in plan.fresh)
        needed += sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(list(states)))
    folder = workdir.absolute()
    # The folder itself may still have to be made.
    there = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(there).free
    if needed > free:
        yield (
            f"--workdir={workdir} must have room for {shortage.amount(needed)} of "
            f"checkpoints, latents and embeddings, got {shortage.amount(free)} free"
        )


def _shard_bytes(leaf: jax.ShapeDtypeStruct, sharding: jax.sharding.Sharding) -> int:
    size = 1
    for side in sharding.shard_shape(leaf.shape):
        size *= side
    return size * leaf.dtype.itemsize


def device_bytes(mesh: Mesh) -> int:
    """Memory of a device; those of a CPU share the machine's."""
    device = next(d for d in mesh.devices.flat if d.process_index == jax.process_index())
    memory_stats = device.memory_stats() if device.platform != "cpu" else None
    if memory_stats and "bytes_limit" in memory_stats:
        return memory_stats["bytes_limit"]
    # All its devices are one memory.
    return memory.total_bytes() // len(mesh.local_devices)


def _stored_bytes(plan: Plan) -> int:
    """Of latents and embeddings, where the config says of how many crops."""
    config, per_crop = plan.config, 0
    if "latents" in plan.fresh:  # halves, of the means alone where nothing is sampled
        per_crop += config.window**2 * config.autoencoder.model.chosen.latent_channels * 2
    if "embeddings" in plan.fresh:
        per_crop += config.denoiser_sizes(config.encoder.architecture.dim).stored_bytes
    return per_crop * config.data.crops.num_crops
