"""Drawn patches against held-out ones, by every network of features."""

import dataclasses
import logging
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from ssldiff_jax.core import files, moments
from ssldiff_jax.data import measures
from ssldiff_jax.evaluation import (
    compared,
    extractors,
    images,
    memorisation,
    statistics,
    stored,
    zero_shot,
)
from ssldiff_jax.slides import pyramid
from ssldiff_jax.stages import generator, labelled, parts, redrawn, stage

_LOG = logging.getLogger(__name__)

_SHOWN = 64

OWN = ("judge", "encoder")
"""Networks of a run itself."""

Networks = Mapping[str, extractors.Extractor]
Features = Float[np.ndarray, "N D"]


def networks(
    context: stage.Context, own: Sequence[str] | None = None
) -> dict[str, extractors.Extractor]:
    """The run's judge and, unless embeddings were computed elsewhere, its encoder, or those of
    `own`; then those that `config.evaluate` names."""
    if own is None:
        own = OWN[:1] if context.config.embeddings.source else OWN
    found: dict[str, extractors.Extractor] = {
        name: extractors.OfEncoder(name, parts.load_encoder(context, name)) for name in own
    }
    for name, path in context.config.evaluate.networks.items():
        found[name] = extractors.load(name, path)
    return found


def run(
    context: stage.Context,
    model: generator.Generator,
    by: Networks,
    folder: pathlib.Path,
    shared: pathlib.Path,
) -> dict[str, Any]:
    """Figures under `patches` (by extractor), `memorisation` and `confusion`; writes into `folder`
    the drawn patches with their features, `drawn.png`, `nearest.png`, `confusion.json` and
    `statistics/`, and into `shared` what is the same for all models: real patches, features.

    Pixels are in memory block by block; features are mapped.
    """
    section = context.config.evaluate
    pair = redraw(context, model, folder, shared)
    seen = {name: pair.features(network) for name, network in by.items()}
    found: dict[str, Any] = {
        "patches": {
            name: compare(
                context,
                extraction_of(context, network),
                *seen[name],
                "held-out patches",
                folder,
                paired=True,
            )
            for name, network in by.items()
        }
    }
    training = labelled.Sample.draw(
        labelled.Source(context.of_models, "train"), section.num_training
    )
    of_training = redrawn.extract(
        by["judge"],
        lambda start, stop: pair.real.format.through(training.pixels(start, stop)),
        len(training),
        shared / "training" / "judge.npy",
    )
    found["memorisation"] = _copies(seen["judge"], of_training, pair, training, folder)
    confusion = _confusion(context, seen, pair.held_out, of_training, training)
    if confusion is not None:
        files.write_json(folder / "confusion.json", confusion)
        found["confusion"] = confusion
    return found


def redraw(
    context: stage.Context, model: generator.Generator, folder: pathlib.Path, shared: pathlib.Path
) -> redrawn.Redrawn:
    """The held-out patches in `shared`, drawn again in `folder`, and some of these on a page."""
    section = context.config.evaluate
    kept = stored.Format(section.jpeg_quality)
    held_out = labelled.Sample.draw(labelled.Source(context, "test"), section.num_patches)
    real, drawn = stored.Files(shared / "real", kept), stored.Files(folder / "drawn", kept)
    pair = redrawn.Redrawn(held_out, real, drawn)
    pair.make(model, context.config.seed + 1000)
    side = int(min(len(held_out), _SHOWN) ** 0.5)
    shown = np.linspace(0, len(held_out) - 1, side * side).astype(int)
    page = images.mosaic(np.stack([pair.drawn.one(int(i)) for i in shown]), side)
    pyramid.write_png(folder / "drawn.png", page)
    return pair


def compare(
    context: stage.Context,
    extraction: statistics.Extraction,
    real: Features,
    drawn: Float[np.ndarray, "M D"],
    dataset: str,
    folder: pathlib.Path,
    *,
    paired: bool,
) -> dict[str, Any]:
    """Figures by one network, with what is needed to repeat them; writes the statistics of the real
    side, called `dataset`. `paired` where each was drawn from the real one of its index."""
    own = statistics.Statistics(extraction, dataset, moments.Moments.of(real))
    path = folder / "statistics" / f"{extraction.extractor}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    sha256 = statistics.write(path, own)
    published = reference(context, extraction)
    told = {"sha256": sha256, "reference": (published or own).dataset}
    found = compared.figures(drawn, real, published.moments if published else None, paired=paired)
    return {"extraction": dataclasses.asdict(extraction) | told} | found


def extraction_of(context: stage.Context, extractor: extractors.Extractor) -> statistics.Extraction:
    """How features of patches come about, to be written beside them."""
    kept = stored.Format(context.config.evaluate.jpeg_quality)
    px = context.config.data.crops.patch_px
    return statistics.Extraction(extractor.name, extractor.digest, extractor.dim, str(kept), px)


def reference(
    context: stage.Context, extraction: statistics.Extraction
) -> statistics.Statistics | None:
    """The published statistics that `config.evaluate.reference` names; None where it does not.

    Raises ValueError for statistics of another extraction.
    """
    named = context.config.evaluate.reference
    if not named:
        return None
    path = pathlib.Path(named).expanduser() / f"{extraction.extractor}.safetensors"
    return statistics.read(path, expected=extraction)


def _copies(
    features: tuple[Features, Features],
    of_training: Features,
    pair: redrawn.Redrawn,
    training: labelled.Sample,
    folder: pathlib.Path,
) -> dict[str, Any]:
    """Whether drawn patches are nearer to training than held-out ones are, by the judge."""
    real, drawn = features
    found = memorisation.compare(drawn, real, of_training)
    beside = lambda copy: (pair.drawn.one(copy.generated), training.patch(copy.training)[1])
    rows = [np.concatenate(beside(copy), axis=1) for copy in found.worst]
    pyramid.write_png(folder / "nearest.png", np.concatenate(rows))
    told = dataclasses.asdict(found)
    del told["worst"]
    pairs = [{"similarity": 1 - copy.distance} for copy in found.worst]
    return told | {"threshold": 1 - found.threshold, "pairs": pairs}


def _confusion(
    context: stage.Context,
    seen: Mapping[str, tuple[Features, Features]],
    held_out: labelled.Sample,
    of_training: Features,
    training: labelled.Sample,
) -> dict[str, Any] | None:
    """What drawn patches are taken for: by a CLIP's prompts, else by the means of real patches of
    each class; the truth is the class of the real patch that led. `of_real` is what these
    themselves are taken for: no drawn ones do better. None where none are asked for, and (a warning
    tells) where training patches are of fewer than two."""
    section = context.config.evaluate
    if not section.classes:
        return None
    truth = held_out.classes(section.classes)
    if extractors.CLIP in seen and section.prompts:
        classes = _of_prompts(context, sorted(set(truth)))
        return _told(classes, seen[extractors.CLIP], truth, range(len(truth)))
    labels = training.classes(section.classes)
    known = measures.CLASSES.get(section.classes, tuple(sorted(set(labels))))
    there = tuple(name for name in known if name in labels)
    kept = [i for i, name in enumerate(truth) if name in there]
    if len(there) < 2 or not kept:
        told = f"training patches of {', '.join(there)}, {len(kept)} of them held out"
        _LOG.warning("two classes of %s are needed to tell, got %s", section.classes, told)
        return None
    classes = zero_shot.from_images(of_training, labels, there)
    return _told(classes, seen["judge"], truth, kept)


def _told(
    classes: zero_shot.Classes,
    features: tuple[Features, Features],
    truth: list[str],
    kept: Sequence[int],
) -> dict[str, Any]:
    labels = [truth[i] for i in kept]
    of_real, found = (zero_shot.classify(classes, side[list(kept)], labels) for side in features)
    scores = lambda c: {"accuracy": c.accuracy, "balanced_accuracy": c.balanced_accuracy}
    told = {"labels": list(found.names), "counts": found.counts.tolist()}
    return told | scores(found) | {"of_real": scores(of_real)}


def _of_prompts(context: stage.Context, found: list[str]) -> zero_shot.Classes:
    """Raises ValueError for a class without words, and words for none."""
    section = context.config.evaluate
    names = measures.CLASSES.get(section.classes, tuple(found))
    prompts = zero_shot.fill(section.templates, section.words)
    if set(prompts) != set(names):
        raise ValueError(
            f"config.evaluate.prompts must be of the classes {', '.join(names)}, got "
            f"{', '.join(prompts)}"
        )
    pair = zero_shot.open_pair(section.networks[extractors.CLIP])
    return zero_shot.from_prompts(pair.texts, {name: prompts[name] for name in names})
