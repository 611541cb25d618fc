"""The figures at the head of their section: each with what it means, what to hold it against (a
floor, a ceiling, chance) and its goal, in words."""

import dataclasses
import functools
import operator
from collections.abc import Mapping, Sequence
from typing import Any

from ssldiff_jax.report import charts, figures, goals, units

number = charts.number


@dataclasses.dataclass(frozen=True)
class Card:
    """A figure of the page; texts must be safe in HTML.

    Attributes:
        values: pairs of a number and whose, or which, it is.
        meaning: what is measured, in a sentence.
        beside: what to hold it against: chance, floor, ceiling, or the same of real images.
        goal: the first key of the row of `goals.ROWS` that says what is aimed at, if one does.
        words: the goal in words, where the row's own say too little.
    """

    title: str
    values: Sequence[tuple[str, float | None]]
    meaning: str
    beside: str
    goal: str = ""
    words: str = ""


def part(metrics: Mapping[str, Any]) -> str:
    """Cards of all figures that the run has."""
    known = {figure["name"]: figure for figure in figures.rows(metrics)}
    cards = [*_by_encoder(metrics), *_pixels(metrics)]
    px, mpp = metrics["data"]["patch_px"], metrics["data"]["mpp"]
    hint = (
        f"A cell is a square of {units.size(px, px, mpp)} that has one embedding. Metrics of "
        "embeddings are given twice: by the encoder, whose embeddings the images are generated "
        "from, and by the judge."
    )
    return (
        f'<p class="hint">{hint}</p>'
        f'<div class="cards">{"".join(_card(card, known) for card in cards)}</div>'
    )


def _by_encoder(m: Mapping[str, Any]) -> list[Card]:
    """Figures in the features of the encoder and of the judge."""
    columns = [
        (who, features) for who, features in (("encoder", m), ("judge", m["judge"])) if features
    ]
    # None by the encoder where embeddings were computed elsewhere.
    columns = [(who, features) for who, features in columns if features["embedding_similarity"]]

    def both(*path: str) -> list[tuple[str, float | None]]:
        """Whose it is, and the figure at a path of keys."""
        return [(who, functools.reduce(operator.getitem, path, f)) for who, f in columns]

    floor = _each(both("fd_floor_uncorrected"))
    cells = [rows * cols for rows, cols in m["data"]["lattices"]]
    cards = [
        Card(
            "Embedding similarity",
            both("embedding_similarity", "mean"),
            "Mean cosine between the embedding of a real cell and that of the cell generated "
            "from it. 1 is ideal.",
            f"Unrelated cells: {_each(both('embedding_similarity', 'shuffled'))}.",
            "embedding_similarity.mean",
            "at least 0.5 above unrelated cells",
        ),
        Card(
            "Cell retrieval, top 1",
            both("cell_retrieval_top1"),
            "Share of generated cells whose nearest real cell of the region is the one they were "
            f"generated from; {columns[0][1]['num_cells']:,} cells."
            if columns
            else "",
            f"Chance: {number(len(cells) / sum(cells))}. {ceiling(m)}",
            "retrieval.encoder",
        ),
        Card(
            "Fréchet distance of single patches",
            both("patch_fd_uncorrected"),
            "Distance between the features of real cells and of patches generated one by one. "
            "0 is ideal. Not corrected for the number of cells.",
            f"{_floor(m)}: {floor}.",
        ),
    ]
    if m["large_image"]:
        cards.insert(2, Card(
            "Fréchet distance of large images",
            both("crop_fd_uncorrected"),
            "Distance between the features of real cells and of crops of the large image, half a "
            "cell away. 0 is ideal. Not corrected for the number of cells.",
            f"{_floor(m)}: {floor}.",
        ))  # fmt: skip
    return cards if columns else []


def ceiling(m: Mapping[str, Any]) -> str:
    """How often a real patch is retrieved when it is moved by a few pixels, or seen otherwise: what
    the features allow a generated one to reach. Empty where neither was measured."""
    encoders = {"encoder": m["encoder"], "judge": m["judge_encoder"]}
    reached: dict[str, list[tuple[str, float]]] = {}
    for who, facts in encoders.items():
        if not facts:
            continue
        shifts = {int(px): value for px, value in facts["retrieval_top1"].items()}
        how = f"moved by {min(shifts)} px" if shifts else "enlarged and with changed colours"
        value = shifts[min(shifts)] if shifts else facts["retrieval_of_views"]
        among = f" among {facts['num_tested']:,}" if facts["num_tested"] else ""
        if value is not None:
            reached.setdefault(f"real patches {how} reach{among}", []).append((who, value))
    said = [f"{how}: {_each(values)}" for how, values in reached.items()]
    return f"Ceiling, what {'; '.join(said)}." if said else ""


def _floor(m: Mapping[str, Any]) -> str:
    if m["large_image"]:
        return "Floor, real cells against real cells half a cell away"
    return "Floor, one half of the real cells against the other"


def _pixels(m: Mapping[str, Any]) -> list[Card]:
    """Figures of pixels, and the time."""
    cards = [
        Card(
            "Autoencoder reconstruction",
            [("dB PSNR", m["reconstruction_psnr"]), ("SSIM", m["reconstruction_ssim"])],
            "Held-out squares, encoded and decoded. SSIM of 1 is ideal.",
            "Ceiling of all generated images: none is sharper than what the autoencoder decodes.",
        )
    ]
    if loss := m["denoising_loss"]:
        cards.append(Card(
            "Denoising loss",
            [(f"{side.replace('_', '-')} patches", loss[side]["value"]) for side in loss],
            "What the denoiser is trained to make small, on patches it never saw and on patches it "
            "was trained on, with the same noise. Much lower on the latter: it has begun to learn "
            "them by heart.",
            f"95 % intervals: {_each_interval(loss)}.",
        ))  # fmt: skip
    if spread := m["diversity"]:
        cards.append(Card(
            "Diversity at one embedding",
            [("judge", spread["corrected"]["value"])],
            f"How far apart {spread['num_variations']} patches of one embedding are, over how far "
            "apart real patches of one embedding are. 1 is as diverse as reality, 0 is collapse; "
            "above 1 they follow the embedding less than real ones do.",
            f"{_interval(spread['corrected'])}. No two real patches have one embedding: the spread "
            f"of near ones ({number(spread['nearness'])} of the squared distance of any two) is "
            "extrapolated to none; without that it would be "
            f"{number(spread['uncorrected']['value'])}.",
        ))  # fmt: skip
    if m["patch_borders"]:
        border = m["patch_borders"]["border"]
        cards.append(Card(
            "Brightness at the border of single patches",
            [("grey levels", border["generated"]["value"])],
            "The outermost pixels of patches generated one by one, minus the pixels next to them. "
            "Near that of real patches is ideal.",
            beside_real(border, "patches"),
        ))  # fmt: skip
    return cards + (_large(m) if m["large_image"] else [])


def _large(m: Mapping[str, Any]) -> list[Card]:
    """Figures that only a large image has."""
    layout, image = m["layout_correlation"], m["large_image"]
    none = "" if layout["identity"] is not None else " Not defined of cells of one colour."
    later = "".join(f"; the next one {number(i['seconds'])} s" for i in m["large_images"][1:2])
    return [
        Card(
            "Layout correlation",
            [("", layout["identity"])],
            "Correlation of the mean colours of cells in the real and the generated image. "
            f"1 is ideal, 0 is chance.{none}",
            f"With the real image transposed: {number(layout.get('transposed'))}.",
            "layout_correlation.identity",
            "at least 0.95, and 0.4 above the transposed image",
        ),
        *_seams(m["seams"] or {}),
        Card(
            "Time of one large image",
            [("s", image["seconds"])],
            f"{image['width']:,} × {image['height']:,} px: {image['unet_forwards']:,} denoiser "
            f"calls, {image['decoder_calls']:,} decoder calls{later}.",
            "The first image includes compilation.",
        ),
    ]


_RULERS = {
    "last_step": ("Seams at window borders", "the borders of the last step’s sampling windows",
                  "seams.last_step.generated.value"),
    "worst_phase": ("Seams at the worst offset",
                    "the lattice of lines, of all offsets, where they are largest",
                    "seams.worst_phase.generated.value"),
    "cell_borders": ("Seams at cell borders", "the borders of cells",
                   "seams.cell_borders.generated.value"),
}  # fmt: skip


def _seams(rulers: Mapping[str, Any]) -> list[Card]:
    """A card for each ruler of seams."""
    known = [(*_RULERS[name], rulers[name]) for name in _RULERS if name in rulers]
    return [
        Card(
            title,
            [("", both["generated"]["value"])],
            f"Steps between neighbouring pixels across {lines}, divided by the "
            "steps beside them. 1 is seamless.",
            beside_real(both, "images"),
            goal,
        )
        for title, lines, goal, both in known
        if both["generated"] and both["real"]
    ]


def beside_real(both: Mapping[str, Any], what: str) -> str:
    """Standard error and count of a mean over generated images, and the same of real ones."""
    generated, real = both["generated"], both["real"]
    return f"Generated: {_mean(generated)} (n = {generated['count']}). Real {what}: {_mean(real)}."


def _mean(mean: Mapping[str, Any]) -> str:
    """A mean with its standard error, where there is one."""
    error = "" if mean["error"] is None else f" ± {number(mean['error'])}"
    return f"{number(mean['value'])}{error}"


def _interval(estimate: Mapping[str, Any]) -> str:
    if estimate["low"] is None:
        return f"No interval, {estimate['interval']}"
    return f"95 % interval: {number(estimate['low'])}…{number(estimate['high'])}"


def _each_interval(shares: Mapping[str, Mapping[str, Any]]) -> str:
    return ", ".join(
        f"{number(share['low'])}…{number(share['high'])} ({name.replace('_', '-')}, n = "
        f"{share['counts'][1]})"
        for name, share in shares.items()
    )


def _each(values: Sequence[tuple[str, float | None]]) -> str:
    return ", ".join(f"{number(value)} ({who})" for who, value in values)


def _card(card: Card, known: Mapping[str, Mapping[str, Any]]) -> str:
    shown = " ".join(
        f'<span class="value"><b>{number(value)}</b> <small>{who}</small></span>'
        for who, value in card.values
    )
    notes = [card.meaning, card.beside, _goal(card, known)]
    body = "".join(f'<p class="note">{note}</p>' for note in notes if note)
    return f'<div class="card"><h3>{card.title}</h3><p>{shown}</p>{body}</div>'


def _goal(card: Card, known: Mapping[str, Mapping[str, Any]]) -> str:
    """The goal in words, and whether it is met."""
    row = next((r for r in goals.ROWS if card.goal and card.goal in r.encoder[:1]), None)
    figure = known.get(row.name) if row else None
    if figure is None or row.goal == goals.Goal():
        return ""
    columns = [encoder_name for encoder_name in goals.ENCODERS if encoder_name in figure]
    verdict = "missed" if figure["missed"] else "met"
    if 0 < len(figure["missed"]) < len(columns):
        verdict = ", ".join(
            f"{'missed' if encoder_name in figure['missed'] else 'met'} by the {encoder_name}"
            for encoder_name in columns
        )
    return f"Goal: {card.words or in_words(row)}. <b>{verdict.capitalize()}</b>."


def in_words(row: goals.Row) -> str:
    """At least, or at most; another value for the judge where it has one."""
    said = _limits(row.goal)
    return f"{said} (judge: {_limits(row.judge_goal)})" if row.judge_goal else said


def _limits(goal: goals.Goal) -> str:
    return " and ".join(
        f"{how} {value:g}{goal.unit}"
        for how, value in (("at least", goal.low), ("at most", goal.high))
        if value is not None
    )
