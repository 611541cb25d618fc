"""The measures of structure that a run's large images have, by what its config says they show."""

import logging
from collections.abc import Sequence

from ssldiff_jax.core import arrays
from ssldiff_jax.data.annotations import measures as annotations
from ssldiff_jax.evaluation.metrics import nuclei, spectral, structure
from ssldiff_jax.runs import artifacts as artifacts_lib
from ssldiff_jax.runs import pixel_classifiers, pixel_labels
from ssldiff_jax.runs.config import run as run_config

_LOG = logging.getLogger(__name__)


def of_bands(config: run_config.RunConfig) -> dict[str, structure.Measure]:
    """Of images of other bands than red, green and blue: `bands`, and `vegetation` where there is
    infrared."""
    multiband = config.data.reading.multiband
    if not multiband.is_used:
        return {}
    measures = {"bands": spectral.bands(multiband.names)}
    if multiband.has_infrared:
        side = config.data.crops.patch_px
        measures["vegetation"] = spectral.vegetation(multiband.of_land, side)
    return measures


def of_run(
    artifacts: artifacts_lib.Artifacts, references: Sequence[arrays.ImageUint8]
) -> dict[str, structure.Measure]:
    """By name: `class_iou` where `config.evaluate.classes` are measured in pixels, `ms_ssim` (with
    a warning, not of regions too small for it), `edges`, `power`, and `nuclei` of stained tissue at
    a scale that shows them."""
    config = artifacts.config
    data, classes = config.level_data, config.evaluate.classes
    measures = {"edges": structure.edges(), "power": structure.fine_power()}
    sizes = [image.shape[:2] for image in references]
    if structure.num_scales(sizes):
        measures["ms_ssim"] = structure.ms_ssim(sizes)
    else:
        least, shown = structure.SSIM_LEAST_PX, min(min(size) for size in sizes)
        _LOG.warning("MS-SSIM is left out: regions of %d px needed, got %d", least, shown)
    if classes in annotations.CLASSES:
        labels = pixel_labels.PixelLabels(classes, data, lambda: artifacts.slide_names)
        classifier = pixel_classifiers.of_records(labels, artifacts.patches("train"))
        measures["class_iou"] = structure.class_maps(classifier, labels.names)
    if classes == "stain" and 0 < data.patch_mpp <= nuclei.MOST_MPP:
        measures["nuclei"] = nuclei.measure(data.patch_mpp, data.crops.patch_px)
    return measures
