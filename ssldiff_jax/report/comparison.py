"""Several runs side by side: their figures, and in what their configs differ.

Read from each work directory: `config.json`, and what there is of `evaluate/results.json`,
`prior/results.json` and the `done.json` of stages.
"""

import dataclasses
import html
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from ssldiff_jax.core import schema
from ssldiff_jax.formats import atomic
from ssldiff_jax.report import charts, goals, tables
from ssldiff_jax.report import metrics as metrics_lib


@dataclasses.dataclass(frozen=True)
class Figure:
    """A number of a run: the file that has it, the keys that lead to it, and what is better."""

    title: str
    file: str
    keys: tuple[str, ...]
    better: Literal["higher", "lower", "one"]


_EVALUATED = "evaluate/results.json"
_FIDELITY = ("patches", "judge", "precision_recall")


def _of_generated(ruler: str) -> tuple[str, ...]:
    """Keys to the mean over generated images by a ruler of seams."""
    return "seams", ruler, "generated", "value"


def _structure(measure: str, figure: str) -> tuple[str, ...]:
    """Keys to a figure of structure of generated images."""
    return "structure", measure, figure, "generated"


# By the encoder, and a second time by the judge.
_FEATURES = (
    Figure("embedding similarity", _EVALUATED, ("embedding_similarity", "mean"), "higher"),
    Figure("cell retrieval, top 1", _EVALUATED, ("cell_retrieval_top1",), "higher"),
    Figure(
        "Fréchet distance of large images, uncorrected",
        _EVALUATED,
        ("crop_fd_uncorrected",),
        "lower",
    ),
    Figure(
        "Fréchet distance of single patches, uncorrected",
        _EVALUATED,
        ("patch_fd_uncorrected",),
        "lower",
    ),
)
_OTHERS = (
    Figure("layout correlation", _EVALUATED, ("layout_correlation", "identity"), "higher"),
    Figure("class maps at 8 px, IoU", _EVALUATED, _structure("class_iou", "mean"), "higher"),
    Figure("MS-SSIM", _EVALUATED, _structure("ms_ssim", "ms_ssim"), "higher"),
    Figure("edges at 8 px", _EVALUATED, _structure("edges", "orientation"), "higher"),
    Figure("nuclei in cells, number", _EVALUATED, _structure("nuclei", "count"), "higher"),
    Figure("nuclei in cells, area", _EVALUATED, _structure("nuclei", "area"), "higher"),
    Figure("power around 4 px", _EVALUATED, _structure("power", "periods_around_4_px"), "one"),
    Figure("seams at window borders", _EVALUATED, _of_generated("last_step"), "one"),
    Figure("seams at the worst offset", _EVALUATED, _of_generated("worst_phase"), "lower"),
    Figure("seams at cell borders", _EVALUATED, _of_generated("cell_borders"), "one"),
    Figure("KID of single patches, by the judge", _EVALUATED, ("patches", "judge", "kid"), "lower"),
    Figure(
        "precision of single patches, by the judge", _EVALUATED, (*_FIDELITY, "precision"), "higher"
    ),
    Figure("recall of single patches, by the judge", _EVALUATED, (*_FIDELITY, "recall"), "higher"),
    Figure(
        "Fréchet distance of crops, by the judge",
        _EVALUATED,
        ("large_image_frechet", "judge", "crops"),
        "lower",
    ),
    Figure(
        "Fréchet distance of whole images, by the judge",
        _EVALUATED,
        ("large_image_frechet", "judge", "whole"),
        "lower",
    ),
    Figure(
        "denoising loss of held-out patches", _EVALUATED, ("denoising_loss", "held_out"), "lower"
    ),
    Figure("diversity at one embedding", _EVALUATED, ("diversity", "corrected"), "one"),
    Figure("share of possible copies", _EVALUATED, ("memorisation", "fraction"), "lower"),
    Figure(
        "Fréchet distance of the prior’s cells",
        "prior/results.json",
        ("prior", "frechet_of_cells"),
        "lower",
    ),
    Figure(
        "Fréchet distance of sampled tokens",
        "tokens/results.json",
        ("tokens", "frechet_of_cells"),
        "lower",
    ),
    Figure("autoencoder PSNR, dB", "autoencoder/done.json", ("facts", "psnr"), "higher"),
    Figure("autoencoder SSIM", "autoencoder/done.json", ("facts", "ssim"), "higher"),
    Figure("seconds of denoiser training", "denoiser/done.json", ("seconds",), "lower"),
    Figure("seconds of sampling", "sample/done.json", ("seconds",), "lower"),
)


def _by_judge(figure: Figure) -> Figure:
    title, keys = f"{figure.title}, by the judge", ("judge", *figure.keys)
    return dataclasses.replace(figure, title=title, keys=keys)


FIGURES = (*(each for f in _FEATURES for each in (f, _by_judge(f))), *_OTHERS)

_BETTER = {
    "higher": ("↑", "higher is better"),
    "lower": ("↓", "lower is better"),
    "one": ("→ 1", "1 is best"),
}


def comparison(workdirs: Sequence[pathlib.Path]) -> str:
    """Tables of the figures and of the config keys whose values differ, a column a run.

    A dash stands for what a run lacks, or has too little data for. Raises ValueError that
    names the first work directory without a config.
    """
    workdirs = [pathlib.Path(path) for path in workdirs]
    configs = [metrics_lib.read(path / "config.json") for path in workdirs]
    names = _names(workdirs)
    figures = [(figure, [_value(path, figure) for path in workdirs]) for figure in FIGURES]
    rows = "".join(_figure_row(f, values) for f, values in figures if set(values) != {None})
    return (
        '<p class="hint">Metrics depend on the encoder, the data and the regions of a run: compare '
        "them only where these are the same in the second table. The best of a row is marked: the "
        "highest (↑), the lowest (↓), or the one nearest to 1. A dash: the run has no such metric, "
        "or too few images for it.</p>"
        f"{_table('metrics of the runs', names, rows)}<h3>Config keys that differ</h3>"
        f"{_differences(names, configs)}"
    )


def _names(workdirs: Sequence[pathlib.Path]) -> list[str]:
    """The last parts of paths: as many as distinguish them."""
    paths = [path.resolve().parts for path in workdirs]
    most = max((len(parts) for parts in paths), default=1)
    for count in range(1, most + 1):
        names = ["/".join(parts[-count:]) for parts in paths]
        # A run that is named twice keeps one name.
        if len(set(names)) == len(set(paths)):
            return names
    return names


def _value(workdir: pathlib.Path, figure: Figure) -> float | None:
    path = workdir / figure.file
    value = atomic.read_json(path) if path.exists() else None
    for key in figure.keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    value = goals.point(value) if goals.is_estimate(value) else value
    return float(value) if isinstance(value, int | float) else None


def _figure_row(figure: Figure, values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    cost = {"higher": lambda v: -v, "lower": lambda v: v, "one": lambda v: abs(v - 1)}
    best = min(known, key=cost[figure.better])
    cells = "".join(
        f'<td class="best"><small>best</small> {charts.number(value)}</td>'
        # Where all are alike none is the best.
        if value == best and len(set(known)) > 1
        else f"<td>{charts.number(value)}</td>"
        for value in values
    )
    sign, said = _BETTER[figure.better]
    hint = f'<span role="img" aria-label="{said}" title="{said}">{sign}</span>'
    return f'<tr><th scope="row">{figure.title} {hint}</th>{cells}</tr>'


def _differences(names: Sequence[str], configs: Sequence[Mapping[str, Any]]) -> str:
    # What only says which stages to run differs between any two commands.
    flat = [schema.flatten(metrics_lib.science(config)) for config in configs]
    keys = sorted({key for config in flat for key in config})
    rows = []
    for key in keys:
        said = [json.dumps(c[key]) if key in c else "–" for c in flat]
        if len(set(said)) > 1:
            cells = "".join(f"<td><code>{html.escape(text)}</code></td>" for text in said)
            rows.append(f'<tr><th scope="row">{html.escape(key)}</th>{cells}</tr>')
    if not rows:
        return '<p class="hint">None.</p>'
    return _table("differences of the configs", names, "".join(rows))


def _table(label: str, names: Sequence[str], rows: str) -> str:
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in names)
    return tables.scrollable(
        label,
        f'<table class="runs"><thead><tr><td></td>{head}</tr></thead><tbody>{rows}</tbody></table>',
    )
