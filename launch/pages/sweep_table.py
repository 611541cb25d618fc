"""What the tool `sweep` measured of every way to sample a run's regions, as Markdown, and the first
region as three of them show it."""

import pathlib
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from ssldiff_jax.formats import atomic
from ssldiff_jax.stages.tools import sweep

_COLUMNS = {
    "calls": ("unet_forwards", "d"),
    "s": ("seconds", ".0f"),
    "seams": ("last_step_seams", ".2f"),
    "worst": ("worst_phase", ".2f"),
    "retrieval": ("judge/retrieval", ".2f"),
    "FD": ("judge/crop_fd_uncorrected", ".3f"),
    "IoU": ("class_iou", ".2f"),
    "MS-SSIM": ("ms_ssim", ".2f"),
    "edges": ("edges", ".2f"),
    "power": ("power", ".2f"),
    "variance": ("variance_ratio", ".2f"),
    "variation": ("variation", ".2f"),
}
# Of sweeps that measured it.
_OPTIONAL = "variation"
_PUBLISHED = "windows.mode=paper"
_WORDS = (
    (r"windows\.mode=paper .*", "as published: stride w/4, guidance 4, 50 steps"),
    (r"windows\.max_offset=0", "aligned grid"),
    (r"windows\.max_offset=(\S+)", r"moves by \1"),
    (r"windows\.last\.steps=0", "no overlap"),
    (r"windows\.last\.steps=1", "the last step overlaps"),
    (r"windows\.last\.steps=(\d+)", r"the last \1 steps overlap"),
    (r"windows\.last\.overlap=(\S+)", r"last steps overlap by \1"),
    (r"windows\.mode=overlap windows\.stride=(\S+)", r"overlap in all steps, stride \1"),
    (r"guidance\.interval=\((\S+?),(\S+?)\) guidance\.scale=(\S+)", r"guidance \3 on \1–\2"),
    (r"guidance\.scale=1\.0", "no guidance"),
    (r"guidance\.scale=(\S+)", r"guidance \1"),
    (r"guidance\.rescale=(\S+)", r"rescale \1"),
    (r"solver\.num_solver_steps=(\d+)", r"\1 steps"),
    (r"student=guidance", "student, guidance alone"),
    (r"student=strides visits=1", "student, 1 long step"),
    (r"student=strides visits=(\d+)", r"student, \1 long steps"),
    (r"conditioning=(\S+)", r"\1"),
)
_GAP = 8
"""White between pictures, px."""


def collect(workdir: pathlib.Path) -> dict[str, Any] | None:
    """The rows of `sweep/results.json`, and what they were made with; None where there are none."""
    folder = workdir / "sweep"
    if not (folder / "done.json").exists():
        return None
    done = atomic.read_json(folder / "done.json")
    sample = atomic.read_json(folder / "stage.json")["config"]["sample"]
    return {
        "rows": atomic.read_json(folder / "results.json"),
        "steps": sample["solver"]["num_solver_steps"],
        "guidance": sample["guidance"],
        "conditioning": sample["conditioning"],
        "date": done["finished"][:10],
        "jax": done["versions"]["jax"],
        "machine": done["machine"],
    }


def markdown(collected: Mapping[str, Any]) -> str:
    """A row for every way, the real regions first."""
    guidance, machine = collected["guidance"], collected["machine"]
    low, high = guidance["interval"]
    columns = dict(_COLUMNS)
    if not any(_OPTIONAL in row for row in collected["rows"]):
        del columns[_OPTIONAL]
    lines = [
        f"| windows, conditioning | {' | '.join(columns)} |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for row in collected["rows"]:
        values = " | ".join(_value(row, key, spec) for key, spec in columns.values())
        lines.append(f"| {words(row['variant'])} | {values} |")
    cores = "1 core" if machine["cores"] == 1 else f"{machine['cores']} cores"
    return (
        f"{cores} of {machine['processor']}; {collected['date']}, jax "
        f"{collected['jax']}. The run samples {collected['conditioning']},\nin "
        f"{collected['steps']} steps, with guidance {guidance['scale']:g} on {low:g}–{high:g}.\n\n"
        + "\n".join(lines)
        + "\n"
    )


def words(way: str) -> str:
    """Changes of `config.sample` as a reader says them."""
    for pattern, text in _WORDS:
        way = re.sub(rf"(?:^|(?<= )){pattern}(?= |$)", rf"{text},", way)
    return way.removesuffix(",")


def _value(row: Mapping[str, Any], key: str, spec: str) -> str:
    value, error = row.get(key), row.get(f"{key}_error")
    if value is None:
        return "–"
    return format(value, spec) + (f" ± {error:{spec}}" if error is not None else "")


def picture(workdir: pathlib.Path) -> Image.Image:
    """The first region: real, as the published way generates it where that was asked for, and as
    the run samples it; one under the other where regions are wider than high."""
    folder = workdir / "sweep"
    # The real regions are row 0, and have no number.
    ways = [row["variant"] for row in atomic.read_json(folder / "results.json")]
    published = [str(i) for i, way in enumerate(ways) if way.startswith(_PUBLISHED)]
    names = ["reference", *published, str(ways.index(sweep.AS_CONFIGURED))]
    shown = []
    for name in names:
        with Image.open(folder / f"{name}.png") as image:
            shown.append(np.asarray(image.convert("RGB")))
    height, width = shown[0].shape[:2]
    axis = 0 if width > height else 1
    gap = np.full((_GAP, width, 3) if axis == 0 else (height, _GAP, 3), 255, np.uint8)
    parts = [part for image in shown for part in (gap, image)]
    return Image.fromarray(np.concatenate(parts[1:], axis=axis))
