"""Tool `watch`: every checkpoint of the denoiser evaluated, while it trains or after."""

import dataclasses
import logging
import pathlib
import shutil
import time
from typing import Any

from jax.sharding import Mesh

from ssldiff_jax.formats import atomic
from ssldiff_jax.generation import generator, models
from ssldiff_jax.report import figures
from ssldiff_jax.runs import artifacts as artifacts_lib
from ssldiff_jax.runs import results_csv, stage
from ssldiff_jax.runs.workdir import force
from ssldiff_jax.stages.evaluate import protocol
from ssldiff_jax.train import checkpoint, hosts

_LOG = logging.getLogger(__name__)

_POLL_SECONDS = 5.0
_NONE = -1  # steps begin at 0


def run(context: stage.Context) -> dict[str, Any]:
    """Regenerate the held-out patches by each checkpoint that is there or comes, and write
    `step_N/results.json`, `results.json` (all steps) and a line of `results.csv`.

    Ends when training is done and its last checkpoint is evaluated; stops when none has come for
    `config.evaluate.patience` minutes, and resumes when it is started again. Large images are not
    generated. Hosts share the patches of a checkpoint, and follow the first to the next.
    """
    section, folder = context.config.evaluate, context.folder("watch")
    if not section.num_patches or context.config.embeddings.source:
        raise stage.WorkdirError(
            "the tool watch evaluates held-out patches by an encoder: "
            "config.evaluate.num_patches must not be 0 and config.embeddings.source '', got "
            f"{section.num_patches} and {context.config.embeddings.source!r}"
        )
    evaluator = _Evaluator(context.artifacts, context.here.mesh, folder)
    latest = time.monotonic()
    # Orbax's checkpoints_iterator follows one folder, gives its latest step alone and copies that
    # beside the others; here none is passed over, the models' folder is only read, and a training
    # that was begun again is followed to its new one.
    while True:
        # Of several hosts, none ends by a signal itself.
        hosts.stop_between("between two checkpoints")
        artifacts = _newest(context.artifacts)
        newest = artifacts.folders
        # As the first host sees it: to another a checkpoint may show a moment later.
        is_done = hosts.broadcast_first(newest.is_done("denoiser"))
        there = checkpoint.steps(newest.checkpoints("denoiser"))
        waiting = [step for step in there if not (folder / f"step_{step}").exists()]
        step = hosts.broadcast_first(waiting[0] if waiting else _NONE)
        if step != _NONE:
            evaluator.evaluate(step, artifacts)
            latest = time.monotonic()
        elif is_done:
            return {"steps": evaluator.write()}
        elif hosts.broadcast_first(time.monotonic() - latest > 60 * section.patience):
            raise hosts.StoppedError(f"no new checkpoint came in {section.patience:g} min")
        else:
            time.sleep(_POLL_SECONDS)


def _newest(artifacts: artifacts_lib.Artifacts) -> artifacts_lib.Artifacts:
    """The same with the denoiser that is being made, if the first host sees one."""
    folders = artifacts.folders
    place = folders.of_stage("denoiser")
    # Another host may see it a moment later, and would load a checkpoint of the one before.
    is_made = hosts.broadcast_first(force.latest(folders, "denoiser") != place)
    newest = folders.at("denoiser", force.beside(place) if is_made else place)
    return dataclasses.replace(artifacts, folders=newest)


class _Evaluator:
    """What is the same for every checkpoint, made when there is a first."""

    def __init__(self, artifacts: artifacts_lib.Artifacts, mesh: Mesh, folder: pathlib.Path):
        self._artifacts, self._mesh, self._folder = artifacts, mesh, folder
        networks = protocol.networks(artifacts)
        # Who chooses among checkpoints by these figures has seen what they are of.
        split = "validation" if artifacts.has_split("validation") else "test"
        self._protocol = protocol.Protocol.of_run(artifacts, networks, folder, split)
        self._model: generator.Generator | None = None

    def evaluate(self, step: int, artifacts: artifacts_lib.Artifacts) -> None:
        """Evaluate one of these; one that training deleted meanwhile is passed over."""
        folder = self._folder / f"step_{step}"
        saved = artifacts.folders.checkpoints("denoiser")
        try:
            # By all hosts, or none goes on with it.
            load = lambda: self._at(artifacts, step)
            model = hosts.each_alone(f"loading checkpoint {step}", load)
        except (OSError, ValueError, hosts.ElsewhereError):
            time.sleep(_POLL_SECONDS)  # training deletes a checkpoint file by file
            if hosts.broadcast_first(step in checkpoint.steps(saved)):
                raise
            _LOG.info("checkpoint %d was deleted before it could be read", step)
            return
        # Beside, and renamed when it is whole: a folder that is there counts as evaluated.
        working = self._folder / f".step_{step}"
        # What a stopped evaluation of this step left.
        clear = lambda: shutil.rmtree(working, ignore_errors=True)
        hosts.on_first_host("making way for a checkpoint's figures", clear)
        results = self._protocol.run(model, working)
        publish = lambda: self._publish(step, results, working, folder)
        hosts.on_first_host("figures of a checkpoint", publish)

    def _publish(
        self, step: int, results: dict[str, Any], working: pathlib.Path, folder: pathlib.Path
    ) -> None:
        # They come again from the checkpoint.
        shutil.rmtree(working / "generated")
        atomic.write_json(working / "results.json", {"step": step} | results)
        working.rename(folder)
        workdir = self._artifacts.folders.workdir
        results_csv.add(workdir, {"tool": "watch", "step": step}, results)
        for name, figures_of_network in results["patches"].items():
            distance = figures.Shown(figures_of_network["frechet"])
            _LOG.info("step %d, Fréchet distance by %s %s", step, name, f"{distance:.4g}")
        self.write()

    def write(self) -> list[int] | None:
        """Write all steps in one file, by the first host, and return their numbers."""
        return hosts.on_first_host("figures of all checkpoints", self._write)

    def _write(self) -> list[int]:
        all_steps = [atomic.read_json(path) for path in self._folder.glob("step_*/results.json")]
        all_steps.sort(key=lambda results: results["step"])
        atomic.write_json(self._folder / "results.json", {"steps": all_steps})
        return [results["step"] for results in all_steps]

    def _at(self, artifacts: artifacts_lib.Artifacts, step: int) -> generator.Generator:
        """The generator with the weights of a step; programs are traced once."""
        if self._model is None:
            trained = models.Models.of_run(artifacts, step, student=False)
            # Checkpoints are the denoiser's; its student is made later.
            config = artifacts.config
            sample = dataclasses.replace(config.sample, student="off")
            config = dataclasses.replace(config, sample=sample)
            self._model = generator.Generator(config, trained, self._mesh)
        params = checkpoint.load_params(artifacts.folders.checkpoints("denoiser"), step=step)
        return self._model.with_params(params)
