"""The figures that the README shows of a run, and what is aimed at: one table of rows."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

ENCODERS = ("encoder", "judge")
MISSED = "✗ "


def is_estimate(value: Any) -> bool:
    """Whether a value has an interval, or a reason why it has none."""
    return isinstance(value, Mapping) and "low" in value


def point(estimate: Mapping[str, Any]) -> float | None:
    """The figure that the interval of an estimate is about; None where vectors are too few."""
    # Exactly one of them: the kinds of estimates differ in this name.
    (name,) = (key for key in ("corrected", "value", "fraction") if key in estimate)
    return estimate[name]


def points(value: Any) -> list[Any]:
    """A number, that of an estimate, or all of a group; none of an estimate of too few."""
    if is_estimate(value):
        return [number for number in [point(value)] if number is not None]
    return list(value.values()) if isinstance(value, Mapping) else [value]


@dataclasses.dataclass(frozen=True)
class Goal:
    """What the first value of a figure must be; each value of a group, if it is one.

    Attributes:
        low: the least that it may be.
        high: the most.
        apart: by how much it must exceed the second value.
        unit: of `low` and `high`.
    """

    low: float | None = None
    high: float | None = None
    apart: float | None = None
    unit: str = ""

    def __str__(self) -> str:
        parts = (
            self.low is not None and f"≥ {self.low:g}{self.unit}",
            self.high is not None and f"≤ {self.high:g}{self.unit}",
            self.apart is not None and f"{self.apart:g} apart",
        )
        return ", ".join(part for part in parts if part) or "–"

    def is_met(self, values: Sequence[Any]) -> bool:
        """Whether values of a figure are as they must be; what is not there misses nothing."""
        # The second value is a baseline only where `apart` says so; else it is shown beside.
        own, others = points(values[0]), values[1:2] if self.apart is not None else []
        return not own or (
            (self.low is None or min(own) >= self.low)
            and (self.high is None or max(own) <= self.high)
            and all(o is None or min(own) - max(points(o)) >= self.apart for o in others)
        )


@dataclasses.dataclass(frozen=True)
class Row:
    """A figure: where its values are among the metrics, and how they are written.

    Attributes:
        encoder: dotted keys of the values in its column; empty where the column has none.
        judge: likewise.
        text: a format with a place for every value.
        goal: what is aimed at.
        judge_goal: what is aimed at in the judge's column, where that is another.
    """

    name: str
    encoder: tuple[str, ...] = ()
    judge: tuple[str, ...] = ()
    text: str = "{:.2f}"
    goal: Goal = Goal()
    judge_goal: Goal | None = None

    def aim(self, encoder_name: str) -> Goal:
        """The goal of a column."""
        return self.judge_goal if encoder_name == "judge" and self.judge_goal else self.goal

    @property
    def aims(self) -> str:
        """The goals in words."""
        return f"{self.goal}; judge {self.judge_goal}" if self.judge_goal else str(self.goal)


def _both(*keys: str) -> dict[str, tuple[str, ...]]:
    """Figures that the judge has under a key of its own."""
    return {"encoder": keys, "judge": tuple(f"judge.{key}" for key in keys)}


def _networks(*keys: str) -> dict[str, tuple[str, ...]]:
    """Figures by network of features."""
    return {
        encoder_name: tuple(key.format(encoder_name) for key in keys) for encoder_name in ENCODERS
    }


def _means(key: str) -> tuple[str, ...]:
    """A mean and its standard error, of generated images and of real ones."""
    sides = ("generated", "real")
    return tuple(f"{key}.{side}.{what}" for side in sides for what in ("value", "error"))


def _structure(key: str) -> tuple[str, ...]:
    """A figure of large images, of real ones that are moved, and of other regions."""
    rest = ("generated", "real_moved.value", "other_region.value")
    return tuple(f"structure.{key}.{side}" for side in rest)


_STRUCTURE = "{:.2f}; {:.2f}; {:.2f}"
_RATIO = "{:.2f} ± {:.2f} ({:.2f} ± {:.2f})"
_GREY = "{:+.1f} ± {:.1f} ({:+.1f} ± {:.1f})"

ROWS = (
    Row("embedding similarity of matching cells / of unrelated cells",
        **_both("embedding_similarity.mean", "embedding_similarity.shuffled"),
        text="{:.2f} / {:.2f}", goal=Goal(apart=0.5)),
    Row("cell retrieval, top 1 (95 % interval); chance",
        **_networks("retrieval.{}", "retrieval.chance"), text="{:.2f}; {:.3f}",
        goal=Goal(low=0.5), judge_goal=Goal(low=0.3)),
    Row("cell retrieval, top 1, by EfficientNet-Lite0, which learnt photographs (95 % interval)",
        judge=("retrieval.efficientnet-lite0",)),
    Row("Fréchet distance of crops of large images by EfficientNet-Lite0, unit features, "
        "uncorrected (floor)",
        judge=tuple(f"outside.efficientnet-lite0.{key}"
                    for key in ("crop_fd_uncorrected", "fd_floor_uncorrected")),
        text="{:.3f} ({:.3f})"),
    Row("Fréchet distance of crops of large images, unit features, uncorrected (floor: real crops "
        "against real crops)",
        **_both("crop_fd_uncorrected", "fd_floor_uncorrected"), text="{:.3f} ({:.3f})"),
    Row("Fréchet distance of single patches, unit features, uncorrected",
        **_both("patch_fd_uncorrected"), text="{:.3f}"),
    Row("Fréchet distance of crops of large images, raw features (95 % interval)",
        **_networks("large_image_frechet.{}.crops"),
        text="{:.3f}"),
    Row("Fréchet distance of whole large images, raw features (95 % interval)",
        **_networks("large_image_frechet.{}.whole"), text="{:.3f}"),
    Row("layout correlation with the real image / with the real image transposed",
        ("layout_correlation.identity", "layout_correlation.transposed"),
        text="{:.2f} / {:.2f}", goal=Goal(low=0.95, apart=0.4)),
    Row("class maps at 8 px, IoU (95 % interval); real image moved by 8 px; another region",
        _structure("class_iou.mean"), text=_STRUCTURE),
    Row("MS-SSIM of grey means of 8 px (95 % interval); moved; another",
        _structure("ms_ssim.ms_ssim"), text=_STRUCTURE),
    Row("edges at 8 px, correlation of strength and direction (95 % interval); moved; another",
        _structure("edges.orientation"), text=_STRUCTURE),
    Row("nuclei in a cell, correlation of their number (95 % interval); moved; another",
        _structure("nuclei.count"), text=_STRUCTURE),
    Row("nuclei in a cell, correlation of their area (95 % interval); moved; another",
        _structure("nuclei.area"), text=_STRUCTURE),
    Row("nuclei over those of the real image (95 % interval)",
        ("structure.nuclei.count_ratio.generated",)),
    Row("power at periods around 4 px over that of the real image (95 % interval)",
        ("structure.power.periods_around_4_px.generated",)),
    Row("seams at window borders of the last solver step: squared pixel differences across them "
        "over those across lines nearby (real images)",
        _means("seams.last_step"), text=_RATIO, goal=Goal(high=1.1)),
    Row("seams at the worst offset of all: the same ratio (real images)",
        _means("seams.worst_phase"), text=_RATIO),
    Row("seams at cell borders: absolute pixel differences across them over those across lines "
        "nearby (real images)",
        _means("seams.cell_borders"), text=_RATIO),
    Row("outermost pixels of single patches, grey levels above the pixels next to them (real "
        "patches)",
        _means("patch_borders.border"), text=_GREY),
    Row("KID of single patches (95 % interval)", **_networks("patches.{}.kid")),
    Row("diversity of patches of one embedding over that of real patches (95 % interval); "
        "uncorrected; squared distance of the real ones' embeddings over that of any two",
        judge=("diversity.corrected", "diversity.uncorrected.value", "diversity.nearness"),
        text="{:.2f}; {:.2f}; {:.2f}"),
    Row("single patches that may be copies of training patches (95 % interval); expected without "
        "copying; share of training searched",
        judge=("memorisation", "memorisation.expected", "memorisation.power"),
        text="{:.2f}; {:.3f}; {:.3g}"),
    Row("class agreement of single patches (ceiling: real patches)",
        judge=("confusion.accuracy", "confusion.real.accuracy"), text="{:.2f} ({:.2f})"),
    Row("images generated from labels: correlation of class shares in labels and image (ceiling: "
        "real images)",
        judge=("agreement.all_conditions", "agreement.real_pixels"),
        text="{:.2f} ({:.2f})", goal=Goal(low=0.7)),
    Row("autoencoder on held-out squares, PSNR and SSIM",
        ("reconstruction_psnr", "reconstruction_ssim"),
        text="{:.1f} dB, SSIM {:.2f}"),
    Row("time of all stages", ("cost.stage_minutes",), text="{:.1f} min",
        goal=Goal(high=20, unit=" min")),
    Row("time from clone to report, installation included", ("cost.minutes",), text="{:.1f} min",
        goal=Goal(high=20, unit=" min")),
    Row("peak memory", ("cost.peak_gb",), text="{:.1f} GB", goal=Goal(high=6, unit=" GB")),
    Row("one large image: size, network calls, time",
        ("first.height", "first.width", "first.unet_forwards", "first.decoder_calls",
         "first.seconds", "next.seconds"),
        text="{:.0f} × {:.0f} px: {:.0f} UNet calls, {:.0f} decodes, {:.0f} s; the next {:.0f} s"),
)  # fmt: skip
