"""How long work takes: by what this machine measured, or by a stated table.

Every figure of the table says whether it was measured, on what, and when. On accelerators none was:
they are arithmetic from what makers state, for products and convolutions of the published UNet.
"""

import dataclasses
import json
import math
import pathlib
import statistics
from collections.abc import Mapping
from typing import Any

from ssldiff_jax.core import estimates
from ssldiff_jax.formats import atomic
from ssldiff_jax.runs import environment
from ssldiff_jax.stages.tools.plan import devices as devices_lib
from ssldiff_jax.stages.tools.plan.rows import Row
from ssldiff_jax.train import chips

_QUIET = "the demo on two quiet cores of an AMD EPYC, 2026-11-28"
_MEASURED_CORES = 2
_PAPER = "not measured: from the maker's figures for products and memory"

_CPU_FLOPS = {
    "encoder": 150e9, "judge": 100e9, "autoencoder": 120e9, "denoiser": 120e9, "distill": 120e9,
    "prior": 110e9,
    "tokens": 110e9,
    "forward": 110e9, "denoise": 150e9, "decode": 100e9,
}  # fmt: skip
"""FLOP a second of two cores, by the stage that trains or by what is called. The denoiser's was
measured alone; the others ran on one core beside another step, which gives 1.6 to 2 times less."""

_CPU_FIXED = {
    "patches": 0.5, "encoder": 15.0, "embeddings": 1.0, "autoencoder": 15.0, "latents": 1.5,
    "denoiser": 30.0, "distill": 60.0, "sample": 8.0, "judge": 12.0, "evaluate": 10.0, "grids": 3.0,
    "prior": 12.0, "tokens": 12.0, "imagine": 10.0, "report": 1.0, "generate": 8.0,
}  # fmt: skip
"""Seconds that a stage takes whatever its size: tracing, compiling, first figures."""

_ACCELERATOR_FIXED = {"train": 180.0, "generate": 120.0, "other": 30.0}
_TRAINED = ("encoder", "judge", "autoencoder", "denoiser", "distill", "prior", "tokens")
_GENERATES = ("sample", "evaluate", "imagine", "generate")

_OF_PEAK = {"train": 0.32, "bfloat16": 0.365, "float32": 0.166}
"""Parts of a chip's bfloat16 products a second, as arithmetic has them for an H100: 520 patches a
second of the published UNet trained, windows denoised in bfloat16 and in TF32."""
_H200_OF_PEAK = {"train": 0.36, "bfloat16": 0.41, "float32": 0.186}

_CUT, _DECODED = 396 * 256**2, 1055 * 256**2
"""Pixels a second and core: from slides to records (an Intel Xeon, 2026-11-26), and of stored
records decoded, cropped and turned (an AMD EPYC, 2026-11-26)."""


@dataclasses.dataclass(frozen=True)
class Time:
    """Seconds of a stage, and where its rates come from."""

    seconds: estimates.Estimate
    sources: tuple[str, ...]


def of_table(name: str, row: Row, devices: devices_lib.Devices) -> Time:
    """By the stated figures; seconds are unknown on an accelerator that no maker's figure is here
    of."""
    if not row.counts:  # it has nothing to do in this run
        return Time(estimates.Estimate(0.0), ("nothing to do",))
    by = _on_cpu if devices.platform == "cpu" else _on_accelerator
    return by(name, row, devices)


def _on_cpu(name: str, row: Row, devices: devices_lib.Devices) -> Time:
    cores, source = devices.cores, f"measured on another machine: {_QUIET}"
    if cores != _MEASURED_CORES:
        source += f", as if {cores} cores were {cores / _MEASURED_CORES:g} times as fast"
    scale = _MEASURED_CORES / cores
    flops = [n * (scale / _CPU_FLOPS[_cpu_key(key, name)]) for key, n in _flops(row)]
    fixed = estimates.Estimate(_CPU_FIXED[name])
    seconds = estimates.total([*flops, _of_host(row, cores), fixed])
    return Time(_within(seconds, source, 0.5), (source,))


def _on_accelerator(name: str, row: Row, devices: devices_lib.Devices) -> Time:
    chip = chips.chip(devices.kind)
    if chip is None:
        source = f"{devices.kind}: no figure of its maker is known here"
        return Time(estimates.Estimate(math.nan, source), (source,))
    source, parts = f"{devices.kind}: {_PAPER}", _of_peak(devices.kind)
    each = [n * (1 / (devices.count * chip.flops * parts[_key(k)])) for k, n in _flops(row)]
    device, host = estimates.total(each), _of_host(row, devices.cores)
    fixed = estimates.Estimate(_ACCELERATOR_FIXED[_sort(name)])
    # A training's batches are decoded while the devices are at work.
    together = _sort(name) == "train"
    work = [max(device, host, key=lambda part: part.value)] if together else [device, host]
    return Time(_within(estimates.total([*work, fixed]), source, 0.5), (source,))


def _of_host(row: Row, cores: int) -> estimates.Estimate:
    """Seconds of cutting and decoding."""
    cut, decoded = (row.work.get(key, _NONE) for key in ("pixels cut", "pixels decoded"))
    return cut * (1 / (_CUT * cores)) + decoded * (1 / (_DECODED * cores))


_NONE = estimates.Estimate(0.0)


def _flops(row: Row) -> list[tuple[str, estimates.Estimate]]:
    return [(key, number) for key, number in row.work.items() if key.startswith("flops")]


def _cpu_key(key: str, name: str) -> str:
    kind = key.split()[1]
    if kind == "train":
        return name
    return kind if kind in _CPU_FLOPS else "forward"


def _key(key: str) -> str:
    _, kind, dtype = key.split()
    return "train" if kind == "train" and dtype == "bfloat16" else dtype


def _of_peak(kind: str) -> Mapping[str, float]:
    return _H200_OF_PEAK if kind.startswith("NVIDIA H200") else _OF_PEAK


def _sort(name: str) -> str:
    return "train" if name in _TRAINED else "generate" if name in _GENERATES else "other"


def _within(seconds: estimates.Estimate, source: str, spread: float) -> estimates.Estimate:
    """Seconds that may be off by a part `spread` beyond what their work may be."""
    low, high = (
        bound if math.isfinite(bound) else seconds.value for bound in (seconds.low, seconds.high)
    )
    sources = "; ".join(filter(None, (source, seconds.source)))
    return estimates.Estimate(seconds.value, sources, low * (1 - spread), high * (1 + spread))


@dataclasses.dataclass(frozen=True)
class Measured:
    """What runs in the same folder measured on this machine, by stage: (what, work, seconds).

    Attributes:
        trainings: FLOP a second, seconds beside the steps, and which run.
        others: what was planned of it by kind of work, its seconds, and which run.
    """

    trainings: Mapping[str, tuple[float, float, str]]
    others: Mapping[str, tuple[Mapping[str, float], float, str]]

    @classmethod
    def of(cls, workdir: pathlib.Path, devices: devices_lib.Devices) -> "Measured":
        """The newest finished stages of a run, or of runs beside it, that were planned, and what
        the tool bench measured there."""
        trainings, others = {}, {}
        if devices.are_here:
            runs = {run.absolute() for run in (workdir, *workdir.absolute().parent.glob("*"))}
            for run in sorted(runs, key=_age):
                trainings |= _benched(run)
                for name, (steps, other) in _stages(run, devices).items():
                    trainings |= {name: steps} if steps else {}
                    others |= {name: other} if other else {}
        return cls(trainings, others)

    def of_stage(self, name: str, row: Row) -> Time | None:
        """As they took; None where nothing was measured, or of another size."""
        if name in self.trainings and "steps" in row.counts:
            rate, beside, run = self.trainings[name]
            flops = estimates.total(n for k, n in _flops(row) if k.startswith("flops train"))
            source = f"measured here: {run}"
            seconds = flops * (1 / rate) + estimates.Estimate(beside)
            return Time(_within(seconds, source, 0.1), (source,))
        if name not in self.others:
            return None
        work, seconds, run = self.others[name]
        ratio = _ratio({key: number.value for key, number in row.work.items()}, work)
        if ratio is None:
            return None
        source = f"measured here: {run}, of about this size"
        return Time(_within(estimates.Estimate(seconds * ratio), source, 0.3), (source,))


_ALIKE = 4.0  # times as much work, or a fourth


def _ratio(ours: Mapping[str, float], theirs: Mapping[str, float]) -> float | None:
    """How many times as much work; None where it is not alike."""
    key = max(ours, key=ours.__getitem__, default=None)
    if key is None:
        return 1.0 if not theirs else None
    if not theirs.get(key):
        return None
    ratio = ours[key] / theirs[key]
    return ratio if 1 / _ALIKE <= ratio <= _ALIKE else None


def _age(run: pathlib.Path) -> float:
    planned = run / "plan" / "results.json"
    return planned.stat().st_mtime if planned.exists() else 0.0


def _benched(run: pathlib.Path) -> dict[str, tuple[float, float, str]]:
    """By training: FLOP a second that the tool bench measured on this machine."""
    folder, rates = run / "bench", {}
    if not (folder / "done.json").exists():
        return {}
    try:
        done = atomic.read_json(folder / "done.json")
        if done["machine"] != environment.describe_machine():
            return {}
        figures = {row["name"]: row["value"] for row in atomic.read_json(folder / "results.json")}
        for name in _TRAINED:
            for key, rate in figures.items():
                flops = figures.get(key.removesuffix("/rate") + "/model_flops")
                if key.startswith(f"train/{name}/") and key.endswith("/rate") and flops:
                    label = f"the tool bench in {run.name}, {done['finished'][:10]}"
                    rates[name] = rate * flops, _CPU_FIXED[name], label
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return rates


def _stages(run: pathlib.Path, devices: devices_lib.Devices) -> dict[str, tuple[Any, Any]]:
    """Of a run whose plan was for these devices: by stage (training, other), each None where it is
    not so."""
    try:
        planned = atomic.read_json(run / "plan" / "results.json")
        if planned["devices"]["kind"] != devices.kind:
            return {}
        rows = {row["stage"]: row for row in planned["stages"] if "work" in row}
        return {name: _of_done(run, name, row) for name, row in rows.items()}
    except (OSError, ValueError, KeyError, TypeError):
        return {}  # of another version, or half written: it measures nothing


def _of_done(run: pathlib.Path, name: str, row: Mapping[str, Any]) -> tuple[Any, Any]:
    folder = run / name
    if not (folder / "done.json").exists():
        return None, None
    done = atomic.read_json(folder / "done.json")
    if done["machine"] != environment.describe_machine():
        return None, None
    day, work = done["finished"][:10], {k: v["value"] for k, v in row["work"].items()}
    label, log = f"stage {name} of {run.name}, {day}", folder / "metrics.jsonl"
    steps = row["counts"].get("steps", {}).get("value")
    if not steps or not log.exists():
        return None, (work, done["seconds"], label)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    each = [line["step_seconds"] for line in lines if "step_seconds" in line]
    flops = sum(v for k, v in work.items() if k.startswith("flops train"))
    if not each or not flops:
        return None, None
    step = statistics.median(each)
    return (flops / steps / step, max(done["seconds"] - steps * step, 0.0), label), None
