"""Stage `imagine`: large images without a reference, generated from grids of the prior, and whether
they show their conditions."""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from ssldiff_jax.core import arrays, rng
from ssldiff_jax.data import mosaic, store
from ssldiff_jax.data.annotations import measures
from ssldiff_jax.evaluation.downstream import pixel_classes
from ssldiff_jax.formats import atomic
from ssldiff_jax.generation import generator as generator_lib
from ssldiff_jax.prior import conditions
from ssldiff_jax.runs import amounts, pixel_labels, stage
from ssldiff_jax.slides import pyramid
from ssldiff_jax.train import logs

_LOG = logging.getLogger(__name__)

_LEARNT = 64  # regions that the classifier of pixels learns from


def run(context: stage.Context) -> dict[str, Any]:
    """Write `image_N.png`, generated with the conditions of held-out grids, the captions beside
    them, and `results.json`: correlation of requested and shown parts of classes in quadrants."""
    if not (context.folder("prior") / "results.json").exists():
        return {"imported": context.config.embeddings.source}
    model, config = generator_lib.Generator.of_run(context.artifacts, context.mesh), context.config
    grids = store.Store(context.folder("grids") / "test")
    # No fewer than are shown.
    count = min(max(config.imagine.count, amounts.IMAGINED_SHOWN), len(grids))
    condition = grids.read("condition", count).astype(np.float32)
    folder = context.folder("imagine")
    captions = atomic.read_json(context.folder("grids") / "captions_test.json")[:count]
    spec = model.prior.spec
    requested = [
        _in_words(spec, row, text)
        for row, text in zip(condition[: amounts.IMAGINED_SHOWN], captions, strict=False)
    ]
    results: dict[str, Any] = {"conditions": requested}
    images = _images(model, condition, count)
    for i, image in enumerate(images[: amounts.IMAGINED_SHOWN]):
        pyramid.write_png(folder / f"image_{i}.png", image)
    if config.prior.conditions.measure != "none" and config.imagine.count:
        measure = pixel_labels.PixelLabels(config.prior.conditions.measure, config.data)
        splits = [context.artifacts.regions(split) for split in ("train", "test")]
        results |= _agreement_with_conditions(model, measure, splits, condition, images)
    atomic.write_json(folder / "results.json", results)
    return results


def _in_words(spec: conditions.ConditionSpec, condition: np.ndarray, caption: str) -> str:
    """A condition in words: its caption, or its labels."""
    if caption:
        return caption
    parts = spec.unpack(condition[None])
    labels = zip(spec.labels, parts["labels"][0], parts["labels_known"][0], strict=True)
    values = [f"{name} {value:.2f}" for name, value, is_known in labels if is_known]
    return ", ".join(values) or "nothing"


def _images(
    model: generator_lib.Generator, condition: np.ndarray, count: int
) -> list[arrays.ImageUint8]:
    progress, images, root = logs.Progress("imagine", count), [], model.config.seed
    grids = model.prior.sample_batch(condition[:count], seed=rng.seed_of(root, "imagine/grids"))
    for i, grid in enumerate(grids):
        seed = rng.seed_of(root, "imagine/image", i)
        images.append(model.generate(grid, seed=seed).image)
        progress.update()
    progress.close()
    return images


def _agreement_with_conditions(
    model: generator_lib.Generator,
    measure: pixel_labels.PixelLabels,
    splits: Sequence[mosaic.RegionTable],
    condition: np.ndarray,
    images_of_all: list[arrays.ImageUint8],
) -> dict[str, Any]:
    """Requested against shown: with all conditions, with labels and with the text alone, and with
    conditions of other images; and how well the classifier does on real pixels."""
    spec, names = model.prior.spec, measure.names
    classifier, real = _pixel_classifier(measure, *splits)
    requested = _quadrants(spec.unpack(condition)["labels"])

    def show(images: list[arrays.ImageUint8]) -> Float[np.ndarray, "N 4 K"]:
        return np.stack([_parts(classifier(image), len(names)) for image in images])

    shown = show(images_of_all)
    seed = rng.seed_of(model.config.seed, "imagine/shuffled")
    # Chance: what a prior reaches that ignores its condition.
    order = np.random.default_rng(seed).permutation(len(condition))
    results = {
        "real_pixels": _correlations(names, *real),
        "all_conditions": _correlations(names, requested, shown),
        "shuffled_conditions": _correlations(names, requested[order], shown),
    }
    for kind in ("labels", "text") if spec.text_phrases else ():
        images = _images(model, spec.keep_only(condition, kind), len(condition))
        results[f"{kind}_alone"] = _correlations(names, requested, show(images))
    for name in results:
        values = ", ".join(f"{key} {value:.2f}" for key, value in results[name].items())
        _LOG.info("correlation of requested and shown classes, %s: %s", name, values)
    return {"agreement": results}


def _pixel_classifier(
    measure: pixel_labels.PixelLabels, train: mosaic.RegionTable, test: mosaic.RegionTable
):
    """A classifier of real training pixels; and (true, predicted) parts of real held-out
    regions."""
    by_split, count = [], len(measure.names)
    for table in (train, test):
        regions = [region for _, region in table.among(range(min(_LEARNT, len(table))))]
        images = [table.read(region) for region in regions]
        maps = [measure.classes(r, image) for r, image in zip(regions, images, strict=True)]
        by_split.append((images, maps))
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


def _correlations(
    names: tuple[str, ...],
    requested: Float[np.ndarray, "N 4 K"],
    shown: Float[np.ndarray, "N 4 K"],
) -> dict[str, float]:
    """Of every class, over all quadrants of all images; 0 where one of them never varies."""
    by_class = {}
    for k, name in enumerate(names):
        a, b = requested[..., k].ravel(), shown[..., k].ravel()
        varies = min(a.std(), b.std()) > 1e-9
        by_class[name] = float(np.corrcoef(a, b)[0, 1]) if varies else 0.0
    return by_class
