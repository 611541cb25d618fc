"""Classifiers of pixels, learnt from a run's real training records alone."""

import numpy as np

from ssldiff_jax.data import mosaic, plan, shuffle
from ssldiff_jax.evaluation.downstream import pixel_classes
from ssldiff_jax.runs import patch_samples, pixel_labels

_PIXELS = 1_000_000  # that are learnt from: four times as many change no IoU by .01


def of_records(
    measure: pixel_labels.PixelLabels, source: patch_samples.RecordPatches
) -> pixel_classes.PixelClassifier:
    """Learnt from whole records of a split, in a fixed random order, as `measure` labels them; the
    classifier itself sees red, green and blue only."""
    px, records = source.record_px, source.records
    count = min(-(-_PIXELS // px**2), len(records))
    # Not the run's seed: runs that differ in it are measured by the same classifier.
    numbers = shuffle.first(count, len(records), seed=0).tolist()
    see, images, classes = measure.data.reading.multiband.shown_view, [], []
    for number in numbers:
        image = np.asarray(records[number])
        images.append(see(image))
        slide, top, left, _ = records.places[number].tolist()
        square = plan.Square(slide, top, left, px, px)
        classes.append(measure.classes(mosaic.Region(square, 0, 0, 0, 1), image))
    return pixel_classes.PixelClassifier.fit(images, classes, len(measure.names))
