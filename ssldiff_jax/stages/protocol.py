"""Drawn patches against held-out ones, by every network of features: part of stage `evaluate`."""

import dataclasses
import io
import logging
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from ssldiff_jax.core import files, moments
from ssldiff_jax.data import measures
from ssldiff_jax.evaluation import (
    distances,
    extractors,
    fidelity,
    images,
    kernel,
    memorisation,
    statistics,
    zero_shot,
)
from ssldiff_jax.slides import pyramid
from ssldiff_jax.stages import generator, parts, runner

_LOG = logging.getLogger(__name__)

_LEAST_KID, _SHOWN_COLS = 4, 8
Patches = UInt8[np.ndarray, "N s s 3"]


def run(context: runner.Context) -> dict[str, Any]:
    """Figures under `patches` (by extractor), `memorisation` and `confusion`; writes
    `drawn.png`, `nearest.png`, `confusion.json` and `statistics/`."""
    section = context.config.evaluate
    if not section.num_patches or context.config.embeddings.source:
        return {}
    real, drawn = _patches(context)
    cols = min(len(drawn), _SHOWN_COLS)
    shown = drawn[: min(len(drawn) // cols, _SHOWN_COLS) * cols]
    pyramid.write_png(context.folder("evaluate") / "drawn.png", images.mosaic(shown, cols))
    kept = "PNG" if not section.jpeg_quality else f"JPEG {section.jpeg_quality}"
    real, drawn = (as_stored(x, section.jpeg_quality) for x in (real, drawn))
    found: dict[str, Any] = {"patches": {}}
    seen = {}
    for extractor in _extractors(context):
        features = extractor(real), extractor(drawn)
        seen[extractor.name] = extractor, features
        found["patches"][extractor.name] = _compare(context, extractor, *features, kept)
    found["memorisation"] = _copies(context, *seen["judge"], drawn)
    confusion = _confusion(context, seen, real)
    if confusion is not None:
        told = {"labels": list(confusion.names), "counts": confusion.counts.tolist(),
                "accuracy": confusion.accuracy}  # fmt: skip
        files.write_json(context.folder("evaluate") / "confusion.json", told)
        found["confusion"] = told | {"balanced_accuracy": confusion.balanced_accuracy}
    return found


def as_stored(patches: Patches, jpeg_quality: int) -> Patches:
    """Images as they come back from files of a format; 0 is PNG."""
    return np.stack([_through_jpeg(p, jpeg_quality) for p in patches]) if jpeg_quality else patches


def _through_jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def _patches(context: runner.Context) -> tuple[Patches, Patches]:
    """Held-out patches, and each drawn again from its embedding."""
    model = generator.Generator.of_run(context)
    real = _held_out(context, context.config.evaluate.num_patches)
    embedding = parts.load_encoder(context)(real)
    return real, model.sample_patches(embedding, seed=context.config.seed + 1000)


def _held_out(context: runner.Context, count: int, split: str = "test") -> Patches:
    """Patches in the middle of records; where records are few, at other places of them too."""
    config = context.config.data
    px, room = config.crops.patch_px, config.records.record_px - config.crops.patch_px
    shifts = [room // 2, 0, room, room // 4, 3 * room // 4]
    found = [parts.patches_at(context, split, count, px, shift) for shift in dict.fromkeys(shifts)]
    whole = np.concatenate(found)[:count]
    if len(whole) < count:
        _LOG.warning("%d of the %d patches wanted are there", len(whole), count)
    return whole


def _extractors(context: runner.Context) -> Iterator[extractors.Extractor]:
    for name in ("judge", "encoder"):
        yield extractors.OfEncoder(name, parts.load_encoder(context, name))
    for name, path in context.config.evaluate.networks.items():
        yield extractors.load(name, path)


def _compare(
    context: runner.Context,
    extractor: extractors.Extractor,
    real: Float[np.ndarray, "N D"],
    drawn: Float[np.ndarray, "M D"],
    kept: str,
) -> dict[str, Any]:
    """Distances and fidelity by one network, with what is needed to repeat them."""
    px = context.config.data.crops.patch_px
    extraction = statistics.Extraction(
        extractor.name, extractor.digest, extractor.dim, kept, px
    )  # fmt: skip
    own = statistics.Statistics(extraction, "held-out patches", moments.Moments.of(real))
    path = context.folder("evaluate") / "statistics" / f"{extractor.name}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    sha256 = statistics.write(path, own)
    sides, dataset = distances.blocks_of(real), own.dataset
    if context.config.evaluate.reference:
        folder = pathlib.Path(context.config.evaluate.reference).expanduser()
        path = folder / f"{extractor.name}.safetensors"
        published = statistics.read(path, expected=extraction)
        sides, dataset = [published.moments], published.dataset
    frechet = distances.frechet_estimate(distances.blocks_of(drawn), sides)
    halves = real[::2], real[1::2]
    found = {
        "extraction": dataclasses.asdict(extraction) | {"sha256": sha256, "reference": dataset},
        "frechet": dataclasses.asdict(frechet),
        "frechet_of_real_halves": distances.frechet_distance(*halves),
        "fidelity": dataclasses.asdict(fidelity.compare(drawn, real)),
    }
    if min(len(real), len(drawn)) >= _LEAST_KID:
        found["kid"] = dataclasses.asdict(kernel.kid(drawn, real))
    return found


def _copies(context, extractor, features, drawn: Patches) -> dict[str, Any]:
    """Whether drawn patches are nearer to training than held-out ones are, by the judge."""
    training = _held_out(context, context.config.evaluate.num_training, "train")
    found = memorisation.compare(features[1], features[0], extractor(training))
    rows = [np.concatenate([drawn[c.generated], training[c.training]], axis=1) for c in found.worst]
    pyramid.write_png(context.folder("evaluate") / "nearest.png", np.concatenate(rows))
    pairs = [{"similarity": 1 - c.distance} for c in found.worst]
    told = dataclasses.asdict(found)
    del told["worst"]
    return told | {"threshold": 1 - found.threshold, "pairs": pairs}


def _confusion(context, seen, real: Patches) -> zero_shot.Confusion | None:
    """Classes of drawn patches: by a CLIP's prompts, else by the means of real patches of each
    measured class; the truth is what is measured in the real patch that led. None without."""
    section, measure = context.config.evaluate, context.config.prior.conditions.measure
    if measure != "stain":  # other measures need bands that patches have not
        return None
    names = measures.CLASSES[measure]
    truth = [_dominant(measure, patch) for patch in real]
    if "clip" in seen and section.prompts:
        pair = zero_shot.open_pair(section.networks["clip"])
        prompts = zero_shot.fill(section.templates, section.words)
        if set(prompts) != set(names):
            raise ValueError(
                f"config.evaluate.prompts must be of the classes {', '.join(names)}, got "
                f"{', '.join(prompts)}"
            )
        classes = zero_shot.from_prompts(pair.texts, {name: prompts[name] for name in names})
        return zero_shot.classify(classes, seen["clip"][1][1], truth)
    training = _held_out(context, section.num_training, "train")
    labels = [_dominant(measure, patch) for patch in training]
    there = tuple(name for name in names if name in labels)
    kept = [i for i, name in enumerate(truth) if name in there]
    if len(there) < 2 or not kept:
        return None
    extractor, (_, drawn) = seen["judge"]
    classes = zero_shot.from_images(extractor(training), labels, there)
    return zero_shot.classify(classes, drawn[kept], [truth[i] for i in kept])


def _dominant(measure: measures.Name, patch: np.ndarray) -> str:
    """The class that most pixels of a patch have."""
    names = measures.CLASSES[measure]
    return names[
        np.bincount(measures.MEASURES[measure](patch).ravel(), minlength=len(names)).argmax()
    ]
