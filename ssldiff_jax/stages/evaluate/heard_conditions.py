"""How much of each kind of condition is heard: by images of the prior where pixels show it, by its
grids where they do not."""

import dataclasses
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from ssldiff_jax.core import arrays, rng
from ssldiff_jax.data import mosaic, store
from ssldiff_jax.data.annotations import measures
from ssldiff_jax.evaluation.downstream import pixel_classes
from ssldiff_jax.evaluation.metrics import grids as grid_metrics
from ssldiff_jax.evaluation.metrics import heard
from ssldiff_jax.generation import prior_sampler
from ssldiff_jax.prior import conditions
from ssldiff_jax.runs import amounts, pixel_labels
from ssldiff_jax.runs import artifacts as artifacts_lib
from ssldiff_jax.runs.config import prior as prior_config

_LOG = logging.getLogger(__name__)

_LEARNT = 64  # regions that the classifier of pixels learns from
_PROBED = 4096  # training grids from which conditions are told

Images = Iterable[arrays.Pixels]


def in_pixels(sources: prior_config.ConditionSourcesConfig) -> tuple[str, ...]:
    """The kinds of condition that pixels show: labels that are measured in these, and texts that
    are worded from such labels or stand for pictures."""
    if sources.measure == "none":
        return ()
    return ("labels", "text") if sources.captions in ("measured", "images") else ("labels",)


def alone(sources: prior_config.ConditionSourcesConfig, kinds: Sequence[str]) -> tuple[str, ...]:
    """Of the kinds of a condition those from which images are generated alone: where there is one
    kind it is all conditions."""
    return tuple(kind for kind in in_pixels(sources) if kind in kinds and len(kinds) > 1)


def measure(
    artifacts: artifacts_lib.Artifacts,
    prior: prior_sampler.PriorSampler,
    condition: conditions.Condition,
    images: Mapping[str, Images],
) -> dict[str, Any]:
    """`heard`, by kind of condition, and `agreement`, the correlations of classes alone.

    Of what is measured in pixels, images show it: generated from all conditions and from each kind
    alone (`images`); beside them what the same images show of the conditions of others, which is
    chance, and what the classifier finds in real regions, which is the ceiling. Of all else grids
    show it, to a regression that is fitted on training grids.
    """
    sources, by_way = artifacts.config.prior.conditions, {}
    if in_pixels(sources):
        by_way = _in_images(artifacts, prior.spec, condition, images)
    agreement = {
        way: {name: estimate.value or 0.0 for name, estimate in figures.classes.items()}
        for way, figures in by_way.items()
    }
    stored = {way: _stored(figures, way, "images") for way, figures in by_way.items()}
    # Of more grids than there are images: few may say something of a sparse table.
    held_out = store.Store(artifacts.folders.of_stage("grids") / "test")
    asked = held_out.read("condition", min(amounts.PRIOR_COMPARED, len(held_out)))
    asked = asked.astype(np.float32)
    for kind in [k for k in prior.spec.kinds(asked) if k not in in_pixels(sources)]:
        way = f"{kind}_alone"
        stored[way] = _stored(_in_grids(artifacts, prior, kind, asked), way, "grids")
    for way, figures in stored.items():
        _LOG.info("heard, %s: %s", way.replace("_", " "), _in_words(figures))
    return {"heard": stored} | ({"agreement": agreement} if agreement else {})


def _in_images(
    artifacts: artifacts_lib.Artifacts,
    spec: conditions.ConditionSpec,
    condition: conditions.Condition,
    images: Mapping[str, Images],
) -> dict[str, heard.Heard]:
    config = artifacts.config
    measure, names_of = config.prior.conditions.measure, lambda: artifacts.slide_names
    labels = pixel_labels.PixelLabels(measure, config.data, names_of)
    names, splits = labels.names, [artifacts.regions(split) for split in ("train", "test")]
    classifier, real = _pixel_classifier(labels, *splits)
    see = config.data.reading.multiband.shown_view
    requested = _quadrants(spec.unpack(condition)["labels"])
    shown = {
        kind: np.stack([_parts(classifier(see(image)), len(names)) for image in generated])
        for kind, generated in images.items()
    }
    # Chance: what a prior reaches that ignores its condition.
    order = _deranged(len(condition), rng.seed_of(config.seed, "imagine/shuffled"))
    by_way = {
        "real_pixels": heard.heard(names, *real),
        "all_conditions": heard.heard(names, requested, shown["all"]),
        "shuffled_conditions": heard.heard(names, requested[order], shown["all"]),
    }
    for kind in [kind for kind in shown if kind != "all"]:
        by_way[f"{kind}_alone"] = heard.heard(names, requested, shown[kind])
        by_way[f"{kind}_shuffled"] = heard.heard(names, requested[order], shown[kind])
    return by_way


def _deranged(count: int, seed: int) -> np.ndarray:
    """For each the number of another, so that nothing keeps its own."""
    order = np.random.default_rng(seed).permutation(count)
    # The next in a random round.
    of = np.empty(count, int)
    of[order] = np.roll(order, 1)
    return of


def _in_grids(
    artifacts: artifacts_lib.Artifacts,
    prior: prior_sampler.PriorSampler,
    kind: str,
    asked: conditions.Condition,
) -> heard.Heard:
    """Of a kind that no pixel shows: what a regression reads in grids sampled from it alone. Grids
    of which it says nothing are left out."""
    spec, folder = prior.spec, artifacts.folders.of_stage("grids")
    training = store.Store(folder / "train")
    fitted = training.batch(range(min(_PROBED, len(training))))
    says = lambda packed: (spec.unpack(packed)[f"{kind}_known"] != 0).any(axis=1)
    said = says(fitted["condition"])
    fitted = {name: values[said] for name, values in fitted.items()}
    asked = spec.keep_only(asked[says(asked)], kind)
    seed = rng.seed_of(artifacts.config.seed, "imagine/heard", kind)
    sampled = prior.white.apply(prior.sample_batch(asked, seed=seed))
    names, (real, wanted) = _values(spec, kind, [fitted["condition"], asked])
    real = np.nan_to_num(real)
    grids = fitted["grid"].astype(np.float32)
    probe = grid_metrics.Probe.fit(grid_metrics.principal(grids, grids), real)
    shown = probe(grid_metrics.principal(sampled, grids))
    return heard.heard(names, wanted[:, None], shown[:, None])


def _values(
    spec: conditions.ConditionSpec, kind: str, packed: list[np.ndarray]
) -> tuple[list[str], list[Float[np.ndarray, "N K"]]]:
    """What conditions say of one kind, NaN where nothing; of texts, whose entries have no names,
    none is named."""
    parts = [spec.unpack(one.astype(np.float32)) for one in packed]
    if kind != "text":
        values = [np.where(part[f"{kind}_known"] != 0, part[kind], np.nan) for part in parts]
        return list(getattr(spec, kind)), values
    shape = spec.text_phrases, spec.text_dim
    return [], [part["text"].reshape(-1, *shape).mean(axis=1) for part in parts]


def _stored(figures: heard.Heard, way: str, shown_by: str) -> dict[str, Any]:
    """Figures as JSON has them. Among the choices of what is shuffled is the right one, so that
    retrieval would lie below chance."""
    rows = {name: dataclasses.asdict(row) for name, row in figures.rows().items()}
    if "shuffled" in way:
        del rows[heard.RETRIEVAL]
    return {"figures": rows, "chance": figures.chance, "shown_by": shown_by}


def _in_words(stored: Mapping[str, Any]) -> str:
    def said(name: str, row: Mapping[str, Any]) -> str:
        if row["value"] is None:
            return f"{name} –"
        if row["low"] is None:
            return f"{name} {row['value']:.2f}"
        return f"{name} {row['value']:.2f} ({row['low']:.2f} … {row['high']:.2f})"

    rows = ", ".join(said(name, row) for name, row in stored["figures"].items())
    return f"{rows}, chance {stored['chance']:.2f}"


def _pixel_classifier(
    measure: pixel_labels.PixelLabels, train: mosaic.RegionTable, test: mosaic.RegionTable
) -> tuple[pixel_classes.PixelClassifier, tuple[heard.Values, heard.Values]]:
    """A classifier of real training pixels; and (true, predicted) parts of real held-out
    regions."""
    by_split, count = [], len(measure.names)
    see = measure.data.reading.multiband.shown_view
    for table in (train, test):
        regions = [region for _, region in table.among(range(min(_LEARNT, len(table))))]
        images = [table.read(region) for region in regions]
        maps = [measure.classes(r, image) for r, image in zip(regions, images, strict=True)]
        by_split.append(([see(image) for image in images], maps))
    classifier = pixel_classes.PixelClassifier.fit(*by_split[0], count)
    images, maps = by_split[1]
    # The ceiling: how well the classifier sees what is measured in real images.
    truth = np.stack([_parts(classes, count) for classes in maps])
    return classifier, (truth, np.stack([_parts(classifier(image), count) for image in images]))


def _parts(classes: np.ndarray, count: int) -> Float[np.ndarray, "4 K"]:
    return measures.quadrant_parts(classes, count).reshape(4, count)


def _quadrants(labels: Float[np.ndarray, "N L"]) -> Float[np.ndarray, "N 4 K"]:
    """Parts in quadrants, from the values of labels."""
    by_class = labels.reshape(len(labels), -1, 1 + len(measures.QUADRANTS))
    # The first value of a class is its part in the whole.
    return by_class[:, :, 1:].swapaxes(1, 2)
