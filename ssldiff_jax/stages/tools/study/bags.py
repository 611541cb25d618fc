"""Bags as the tool `study` classifies them: regions or slides, and each regenerated."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Sequence

import numpy as np

from ssldiff_jax.core import patch_grid, rng, schema, spelling
from ssldiff_jax.data import mosaic, plan
from ssldiff_jax.data.annotations import case_tables
from ssldiff_jax.evaluation.downstream import classifiers, mil
from ssldiff_jax.runs import artifacts as artifacts_lib
from ssldiff_jax.runs import host_arrays, patch_samples, pixel_labels
from ssldiff_jax.runs.config import study as study_config
from ssldiff_jax.stages.tools.study import task as study_task
from ssldiff_jax.train import hosts


@dataclasses.dataclass(frozen=True, eq=False)
class _Bag:
    """Places whose embeddings are one bag: how many and how they are read, and what is known of
    it."""

    count: int
    read: Callable[[], np.ndarray]
    case: str
    name: str = ""
    shows: float = 0.0


def task(
    artifacts: artifacts_lib.Artifacts, regenerator: study_task.Regenerator, between: pathlib.Path
) -> study_task.Task | None:
    """Bags of embeddings, of regions or of slides, and what the run's encoder sees in every cell
    of the training ones regenerated: by all hosts, in the folder `between`. None where this host is
    not the first.

    Raises ValueError where a split shows one class only.
    """
    config, section = artifacts.config, artifacts.config.study.bags
    if section.of == "slides" and not section.labels:
        raise schema.ConfigError(
            "config.study.bags.labels must name a CSV file (case, label) for bags of slides, got ''"
        )
    is_regions, seed = section.of == "regions", config.seed
    if is_regions:
        names = lambda: artifacts.slide_names
        measure = pixel_labels.PixelLabels(section.measure, config.level_data, names)
        section.require_shown(measure.names)
        of_source = functools.partial(_regions, section=section, measure=measure, seed=seed)
    else:
        of_source = functools.partial(_slides, section=section, seed=seed)
    train, test = (of_source(artifacts.patches(split)) for split in study_task.SPLITS)
    if is_regions:
        # Halves of training, so that both classes are as frequent; held-out bags by the same limit.
        least = float(np.median([bag.shows for bag in train]))
        classes = (f"less {section.shows}", f"more {section.shows}")
        label, test_label = (np.array([int(b.shows > least) for b in s]) for s in (train, test))
    else:
        classes = tuple(sorted({bag.name for bag in (*train, *test)}))
        label, test_label = (np.array([classes.index(b.name) for b in s]) for s in (train, test))
    used = study_task.used(label, config.study, config.seed)
    cases = patch_samples.numbered(bag.case for bag in test)
    task_ = study_task.Task(classes, label, test_label, cases, used)
    chosen = [train[i] for i in used]
    kept = study_task.folder_of(used, between)
    of_train = _embeddings(chosen, regenerator, section.num_generated, kept / "bags")
    of_test = _embeddings(test, regenerator, 0, kept / "test_bags")

    def standardised() -> study_task.Task:
        real, *generated = _by_bag(chosen, of_train)
        (seen_in_test,) = _by_bag(test, of_test)
        # One for all sets: programs are traced once.
        length = max(len(bag) for bag in (*real, *seen_in_test))
        # Of real training bags alone, for all: what is generated is measured by what is real.
        scaling = classifiers.Scaling.of(np.concatenate(real))
        padded = lambda bags: mil.Bags.of([scaling(bag) for bag in bags], length)
        of_generated = [padded(regenerated) for regenerated in generated]
        inputs = study_task.Inputs(padded(real), of_generated, padded(seen_in_test))
        return dataclasses.replace(task_, inputs={"bags": inputs})

    return hosts.on_first_host("embeddings of the study's bags", standardised)


def _embeddings(
    bags: list[_Bag], regenerator: study_task.Regenerator, repetitions: int, folder: pathlib.Path
) -> host_arrays.HostArrays:
    """Of each block of bags the embeddings of all its cells, and of these regenerated, by
    repetition: (1 + repetitions, cells, D). Pixels are let go block by block."""
    blocks = _blocks(bags)
    # In the order in which one host would use them.
    seeds = [regenerator.seeds(repetitions) for _ in blocks]

    def embed(number: int) -> np.ndarray:
        pixels = np.concatenate([bag.read() for bag in blocks[number]])
        real = regenerator.embed(pixels)
        condition = regenerator.condition(pixels, real)
        again = (regenerator.regenerate(condition, seed) for seed in seeds[number])
        return np.stack([real, *map(regenerator.embed, again)])

    made = host_arrays.HostArrays(folder, len(blocks))
    made.make("blocks of study bags", embed)
    return made


def _by_bag(bags: list[_Bag], made: host_arrays.HostArrays) -> list[list[np.ndarray]]:
    """The embeddings of every bag, of real cells and of each repetition."""
    ends = np.cumsum([bag.count for bag in bags])[:-1]
    return [np.split(cells, ends) for cells in np.concatenate(list(made), axis=1)]


def _blocks(bags: list[_Bag]) -> list[list[_Bag]]:
    """As many bags together as fill a block."""
    blocks: list[list[_Bag]] = [[]]
    for bag in bags:
        if sum(b.count for b in blocks[-1]) >= study_task.BLOCK:
            blocks.append([])
        blocks[-1].append(bag)
    return blocks


def _regions(
    source: patch_samples.RecordPatches,
    section: study_config.BagStudy,
    measure: pixel_labels.PixelLabels,
    seed: int,
) -> list[_Bag]:
    """Squares of side × side cells anywhere that records cover."""
    px, is_train = source.patch_px, source.split == "train"
    whole, bags = source.mosaic, []
    count = section.count if is_train else section.count_test
    table = mosaic.RegionTable(
        whole,
        count,
        px,
        section.side,
        section.side,
        False,
        rng.seed_of(seed, f"study/regions/{'train' if is_train else 'test'}"),
    )
    which = measure.names.index(section.shows)
    table.require_some()
    for _, region in table.among(range(count)):
        square = region.square
        shows = measure.shown(square, whole.read(square))[which]
        case = source.metadata(int(whole.places(square.slide)[0, 2]), "case")
        read = functools.partial(_cells, whole, square, px)
        bags.append(_Bag(section.side**2, read, case, shows=float(shows)))
    return bags


def _cells(whole: mosaic.Mosaic, square: plan.Square, px: int) -> np.ndarray:
    return patch_grid.cut_cells(whole.read(square), px)


def _slides(
    source: patch_samples.RecordPatches, section: study_config.BagStudy, seed: int
) -> list[_Bag]:
    """Slides whose case has a label; of large ones some patches.

    Raises TableError for a case of several labels, and where no slide has one.
    """
    labels = case_tables.Labels.read(section.labels, lambda: _cases_by_slide(source)).of_case
    generator_ = np.random.default_rng(rng.seed_of(seed, "study/slides"))
    bags, records = [], source.records
    for slide in source.records.slides[:, 0].tolist():
        numbers = source.mosaic.places(slide)[:, 2]
        case = spelling.same(source.metadata(int(numbers[0]), "case"))
        if case not in labels:
            continue
        # A bag has one class.
        if len(labels[case]) > 1:
            raise case_tables.TableError(
                f"{section.labels}: case {case!r} must have one label, got "
                f"{', '.join(sorted(labels[case]))}"
            )
        chosen = generator_.permutation(numbers)[: section.cells].tolist()
        read = functools.partial(_patches, source, chosen)
        bags.append(_Bag(len(chosen), read, case, name=next(iter(labels[case]))))
    if not bags:
        raise case_tables.TableError(
            f"{section.labels} must label cases of the {source.split} split, got none of "
            f"{len(records.slides)} slides"
        )
    count = section.count if source.split == "train" else section.count_test
    order = generator_.permutation(len(bags))[: count or len(bags)]
    return [bags[number] for number in order]


def _cases_by_slide(source: patch_samples.RecordPatches) -> dict[str, frozenset[str]]:
    numbers = [int(source.mosaic.places(s)[0, 2]) for s in source.records.slides[:, 0].tolist()]
    return case_tables.cases_by_slide(
        (source.metadata(number, "slide"), source.metadata(number, "case")) for number in numbers
    )


def _patches(source: patch_samples.RecordPatches, numbers: Sequence[int]) -> np.ndarray:
    return np.stack([source.patch(number)[1] for number in numbers])
