"""Seams of a run's large images, by every ruler of `evaluation.metrics.seams`, beside real
images'."""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ssldiff_jax.core import arrays, patch_grid
from ssldiff_jax.evaluation.metrics import large_image, means, seams
from ssldiff_jax.formats import atomic
from ssldiff_jax.runs.workdir import folders


def of_images(
    folder: pathlib.Path, pairs: Sequence[large_image.Pair], side: int, factor: int
) -> dict[str, Any]:
    """Steps across the window lines of the last solver step (`last_step`) and of those before it
    (`earlier_steps`), at the worst phase of all (`worst_phase`) and across borders of cells
    (`cell_borders`), each over the steps beside, with its standard error over images.

    Lines are those that stage `sample` wrote into `folder`; those of image i are laid over region i
    too. Raises WorkdirError where it wrote none.
    """
    lines_of_image = [window_lines(folder, i) for i in range(len(pairs))]

    def over(image: arrays.ImageUint8, lines: seams.Lines, **options: Any) -> float | None:
        return seams.step_ratio(image, lines, factor=factor, reach=side // 2, **options)

    # Where windows lie side by side to the end, those of the last step have 2.5 on a field whose
    # best denoiser is known, and lines on which a moving grid rests have 0.97.
    steps = [
        _both(
            pairs,
            lambda i, image, k=k: over(image, lines_of_image[i][k], besides=lines_of_image[i]),
        )
        for k in range(min(map(len, lines_of_image)))
    ]

    def cells(i: int, image: arrays.ImageUint8) -> float | None:
        lines = seams.Lines.every(side, image.shape[:2])
        return over(image, lines, besides=lines_of_image[i], power=1)

    def worst(_: int, image: arrays.ImageUint8) -> float | None:
        phase = seams.worst_phase(image, period=side, factor=factor)
        return phase and phase.ratio

    return {
        "last_step": steps[0],
        "earlier_steps": steps[1:],
        "worst_phase": _both(pairs, worst),
        "cell_borders": _both(pairs, cells),
    }


def of_patches(
    real: Sequence[arrays.ImageUint8],
    generated: Sequence[arrays.ImageUint8],
    side: int,
    factor: int,
) -> dict[str, Any]:
    """Rings of pixels along the borders of patches side by side on pages, grey levels over their
    middles (`profile`), and of the outer `factor` px over as many next to them (`border`) with its
    standard error over patches: what a patch shows differs less from one ring to the next than from
    the border to the middle."""
    figures: dict[str, Any] = {"profile": {}, "border": {}}
    for name, pages in (("generated", generated), ("real", real)):
        patches = np.concatenate([patch_grid.cut_cells(page, side) for page in pages])
        rings = seams.ring_profile(patches)
        figures["profile"][name] = rings.mean(axis=0).tolist()
        # One latent: what a decoder may do at a border.
        width = min(factor, rings.shape[1] // 2)
        # Beside the middle a patch's own content differs more than any frame: −.4 ± 1.4 grey levels
        # where this says 2.3 ± .7.
        outer, next_to_it = rings[:, :width], rings[:, width : 2 * width]
        figures["border"][name] = _mean_of((outer.mean(axis=1) - next_to_it.mean(axis=1)).tolist())
    return figures


def window_lines(folder: pathlib.Path, number: int) -> list[seams.Lines]:
    """The window lines of the last steps of an image, the last step first."""
    path = folder / f"image_{number}.json"
    stored = atomic.read_json(path).get("window_lines")
    if not stored:
        raise folders.WorkdirError(
            f"{path} must have the window_lines of the last steps, got none: "
            "--config.force=sample generates the image again"
        )
    return [seams.Lines(tuple(lines["rows"]), tuple(lines["cols"])) for lines in stored]


def _both(
    pairs: Sequence[large_image.Pair], of: Callable[[int, arrays.ImageUint8], float | None]
) -> dict[str, Any]:
    """Means of `of(number, image)` over generated images and over their regions."""
    return {
        "generated": _mean_of([of(i, pair.image) for i, pair in enumerate(pairs)]),
        "real": _mean_of([of(i, pair.reference) for i, pair in enumerate(pairs)]),
    }


def _mean_of(values: Sequence[float | None]) -> dict[str, Any] | None:
    mean = means.Mean.of(values)
    return mean and dataclasses.asdict(mean)
