"""What the tool `study` teaches and tests with: real patches and bags, and each drawn again."""

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from ssldiff_jax.core import config as config_lib
from ssldiff_jax.data import measures, mosaic
from ssldiff_jax.evaluation import classifiers, images, mil, scores
from ssldiff_jax.stages import case_tables, generator, labelled, runner
from ssldiff_jax.train import logs

_SPLITS = ("train", "test")
_BLOCK = 512  # cells that are embedded and drawn together


@dataclasses.dataclass(frozen=True, eq=False)
class Inputs:
    """What a classifier is given: arrays, or bags, of N training and M test examples.

    Attributes:
        train: real ones.
        drawn: one set of N for each draw; example i has the label of the real one i.
        test: real ones of the held-out split.
    """

    train: Any
    drawn: list[Any]
    test: Any


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """Something to classify.

    Attributes:
        classes: names, by label.
        label: of N training examples.
        test_label: of M test examples.
        test_case: a number for the case of each.
        inputs: by what it is that a classifier sees.
    """

    classes: tuple[str, ...]
    label: Int[np.ndarray, "N"]
    test_label: Int[np.ndarray, "M"]
    test_case: Int[np.ndarray, "M"]
    inputs: dict[str, Inputs]

    def __post_init__(self):
        for split, label in (("train", self.label), ("test", self.test_label)):
            scores.require_classes(label, f"the {split} split of classes {', '.join(self.classes)}")

    def counts(self) -> dict[str, dict[str, int]]:
        """Examples of every class in both splits."""
        count = lambda label: {name: int(np.sum(label == k)) for k, name in enumerate(self.classes)}
        return {"train": count(self.label), "test": count(self.test_label)}


class Drawer:
    """Real cells to embeddings, and to embeddings of cells drawn again from those."""

    def __init__(self, model: generator.Generator, seed: int):
        self._model = model
        self._seeds = itertools.count(seed)

    def embed(self, patches: np.ndarray) -> Float[np.ndarray, "N D"]:
        """By the run's encoder. Raises ValueError for embeddings that are not finite."""
        embedding = self._model.encoder(patches)
        classifiers.require_finite(embedding, "embeddings of the run's encoder")
        return embedding

    def draw(self, embedding: Float[np.ndarray, "N D"]) -> np.ndarray:
        """A patch for each embedding, by another seed every time."""
        return self._model.sample_patches(embedding, seed=next(self._seeds))


def patches(context: runner.Context, drawer: Drawer) -> Task:
    """One patch of each record, and what is drawn from the embeddings of the training ones.

    Raises ValueError where a split shows one class only, and where records tell none.
    """
    section, found = context.config.study.patches, {}
    for split, count in zip(_SPLITS, (section.count, section.count_test), strict=True):
        found[split] = _patches_of(labelled.Source(context, split), section.labels, count)
    known = set(found["train"][1]) | set(found["test"][1])
    measured = section.labels in measures.CLASSES
    classes = measures.CLASSES[section.labels] if measured else tuple(sorted(known))
    label = {split: np.array([classes.index(n) for n in found[split][1]]) for split in _SPLITS}
    real, test = found["train"][0], found["test"][0]
    # A split of one class is refused before anything is drawn.
    task = Task(classes, label["train"], label["test"], found["test"][2], {})
    embedding, test_embedding = drawer.embed(real), drawer.embed(test)
    progress = logs.Progress("study patches", section.draws * len(real))
    drawn = [_in_blocks(drawer.draw, embedding, progress) for _ in range(section.draws)]
    progress.close()
    redrawn = [drawer.embed(images_) for images_ in drawn]
    seen = {
        "pixels": Inputs(real, drawn, test),
        "embedding": Inputs(embedding, redrawn, test_embedding),
    }
    return dataclasses.replace(task, inputs=seen)


def _in_blocks(
    draw: Callable[[np.ndarray], np.ndarray], embedding: np.ndarray, progress: logs.Progress
) -> np.ndarray:
    made = []
    for start in range(0, len(embedding), _BLOCK):
        made.append(draw(embedding[start : start + _BLOCK]))
        progress.update(len(made[-1]))
    return np.concatenate(made)


def _patches_of(source: labelled.Source, labels: labelled.Labels, count: int):
    """(patches, names of their classes, numbers of their cases)."""
    order = np.random.default_rng(source.context.config.seed).permutation(len(source.records))
    order = order[: count or len(order)].tolist()
    patches_ = [source.patch(number) for number in order]
    if labels == "recorded":
        names = labelled.recorded(source, order)
    else:
        measure = labelled.Measure.of_run(source.context, labels)
        names = [measure.most(patch) for patch in patches_]
    cases = labelled.numbered(source.told(number, "case") for number in order)
    return np.stack([pixels for _, pixels in patches_]), names, cases


@dataclasses.dataclass(frozen=True, eq=False)
class _Bag:
    """Places whose embeddings are one bag: how its patches are read, and what is known of it."""

    read: Callable[[], np.ndarray]
    case: str
    name: str = ""
    shows: float = 0.0


def bags(context: runner.Context, drawer: Drawer) -> Task:
    """Bags of embeddings, of regions or of slides, and what the run's encoder sees in every cell
    of the training ones drawn again.

    Raises ValueError where a split shows one class only.
    """
    section = context.config.study.bags
    if section.of == "slides" and not section.labels:
        raise config_lib.ConfigError(
            "config.study.bags.labels must name a CSV file (case, label) for bags of slides, got ''"
        )
    of = _regions if section.of == "regions" else _slides
    found = {split: of(labelled.Source(context, split)) for split in _SPLITS}
    if section.of == "regions":
        least = float(np.median([bag.shows for bag in found["train"]]))
        classes = (f"less {section.shows}", f"more {section.shows}")
        label = {s: np.array([int(bag.shows > least) for bag in found[s]]) for s in _SPLITS}
    else:
        classes = tuple(sorted({bag.name for split in _SPLITS for bag in found[split]}))
        label = {s: np.array([classes.index(bag.name) for bag in found[s]]) for s in _SPLITS}
    cases = labelled.numbered(bag.case for bag in found["test"])
    task = Task(classes, label["train"], label["test"], cases, {})
    real, drawn = _embedded(found["train"], drawer, section.draws, "study bags")
    test, _ = _embedded(found["test"], drawer, 0, "study test bags")
    length = max(len(bag) for bag in (*real, *test))
    pad = lambda found: mil.Bags.of(found, length)
    seen = Inputs(pad(real), [pad(redrawn) for redrawn in drawn], pad(test))
    return dataclasses.replace(task, inputs={"bags": seen})


def _embedded(found: list[_Bag], drawer: Drawer, draws: int, name: str):
    """(embeddings of every bag, the same of each draw); pixels are let go block by block."""
    real: list[np.ndarray] = []
    drawn: list[list[np.ndarray]] = [[] for _ in range(draws)]
    progress = logs.Progress(name, len(found))
    for block in _blocks(found):
        ends = np.cumsum([len(patches_) for patches_ in block])[:-1]
        embedding = drawer.embed(np.concatenate(block))
        real += np.split(embedding, ends)
        for redrawn in drawn:
            redrawn += np.split(drawer.embed(drawer.draw(embedding)), ends)
        progress.update(len(block))
    progress.close()
    return real, drawn


def _blocks(found: list[_Bag]) -> Iterator[list[np.ndarray]]:
    """Patches of bags, as many bags as fill a block."""
    block: list[np.ndarray] = []
    for bag in found:
        block.append(bag.read())
        if sum(map(len, block)) >= _BLOCK:
            yield block
            block = []
    if block:
        yield block


def _regions(source: labelled.Source) -> list[_Bag]:
    """Squares of side × side cells anywhere that records cover."""
    config, section = source.context.config, source.context.config.study.bags
    px, is_train = config.data.crops.patch_px, source.split == "train"
    measure = labelled.Measure.of_run(source.context, section.measure)
    whole, found = source.mosaic, []
    count = section.count if is_train else section.count_test
    table = mosaic.RegionTable(
        whole, count, px, section.side, section.side, False, config.seed + (not is_train)
    )
    which = measure.names.index(section.shows)
    for region in (table[number] for number in range(count)):
        square = region.square
        shows = measure.shown(square, whole.read(square))[which]
        case = source.told(int(whole.places(square.slide)[0, 2]), "case")
        read = lambda square=square: images.cut_cells(whole.read(square), px)
        found.append(_Bag(read, case, shows=float(shows)))
    return found


def _slides(source: labelled.Source) -> list[_Bag]:
    """Slides whose case has a label; of large ones some patches.

    Raises TableError for a case of several labels, and where no slide has one.
    """
    section, config = source.context.config.study.bags, source.context.config
    labels = case_tables.Labels.read(section.labels).of_case
    generator_, found, records = np.random.default_rng(config.seed), [], source.records
    for slide in source.records.slides[:, 0].tolist():
        numbers = source.mosaic.places(slide)[:, 2]
        case = source.told(int(numbers[0]), "case")
        if case not in labels:
            continue
        if len(labels[case]) > 1:
            raise case_tables.TableError(
                f"{section.labels}: case {case!r} must have one label, got "
                f"{', '.join(sorted(labels[case]))}"
            )
        chosen = generator_.permutation(numbers)[: section.cells].tolist()
        read = lambda chosen=chosen: np.stack([source.patch(number)[1] for number in chosen])
        found.append(_Bag(read, case, name=next(iter(labels[case]))))
    if not found:
        raise case_tables.TableError(
            f"{section.labels} must label cases of the {source.split} split, got none of "
            f"{len(records.slides)} slides"
        )
    count = section.count if source.split == "train" else section.count_test
    kept = generator_.permutation(len(found))[: count or len(found)]
    return [found[number] for number in kept]
