"""Generated patches against held-out ones, by every network of features."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from ssldiff_jax.core import bands, moments, patch_grid, rng
from ssldiff_jax.data import plan
from ssldiff_jax.evaluation.features import image_files
from ssldiff_jax.evaluation.features import networks as extractors
from ssldiff_jax.evaluation.metrics import memorisation, statistics, summary
from ssldiff_jax.formats import atomic
from ssldiff_jax.generation import generator
from ssldiff_jax.runs import artifacts as artifacts_lib
from ssldiff_jax.runs import patch_samples
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.runs.workdir import folders
from ssldiff_jax.slides import pyramid
from ssldiff_jax.stages.evaluate import confusion as confusion_lib
from ssldiff_jax.stages.evaluate import denoising_loss, regenerated, variation_spread
from ssldiff_jax.train import hosts

# Patches on the page of generated ones, a square of 8 × 8.
_SHOWN = 64
EXAMPLES = 10_000
"""Training patches that classes are measured in, at most: a mean of features needs no more."""

OWN = ("judge", "encoder")
"""Networks of a run itself."""

Networks = Mapping[str, extractors.Extractor]
Features = Float[np.ndarray, "N D"]


@dataclasses.dataclass(frozen=True)
class PatchFiles:
    """How features of patches come about: as files of a format, of patches of `px`, compared with
    the statistics in the folder `reference` where it has some ("" for none)."""

    format: image_files.Format
    px: int
    reference: str

    @classmethod
    def of(cls, config: run_config.RunConfig) -> "PatchFiles":
        """As a config says."""
        section, is_stacked = config.evaluate, config.data.reading.multiband.is_used
        file_format = image_files.Format(section.jpeg_quality, is_stacked)
        return cls(file_format, config.data.crops.patch_px, section.reference)

    def extraction(self, network: extractors.Extractor) -> statistics.Extraction:
        """What is written beside features of a network."""
        kept = str(self.format)
        return statistics.Extraction(network.name, network.digest, network.dim, kept, self.px)

    def published(self, network: extractors.Extractor) -> statistics.Statistics | None:
        """The published statistics of a network; None where there are none.

        Raises ValueError for statistics of another extraction.
        """
        return reference(self.reference, self.extraction(network))


def networks(
    artifacts: artifacts_lib.Artifacts, own: Sequence[str] | None = None
) -> dict[str, extractors.Extractor]:
    """The run's judge and, unless embeddings were computed elsewhere, its encoder, or those of
    `own`; then those that `config.evaluate` names.

    Raises WorkdirError for a reference that knows none of them.
    """
    if own is None:
        own = OWN[:1] if artifacts.config.embeddings.source else OWN
    by_name: dict[str, extractors.Extractor] = {
        name: extractors.OfEncoder(name, artifacts.encoder(name)) for name in own
    }
    multiband = artifacts.config.data.reading.multiband
    for name, path in artifacts.config.evaluate.networks.items():
        network = extractors.load(name, path)
        by_name[name] = (
            extractors.Seen(network, multiband.shown_view) if multiband.is_used else network
        )
    named = artifacts.config.evaluate.reference
    if named and not any(_reference_path(named, name).exists() for name in by_name):
        raise folders.WorkdirError(
            f"config.evaluate.reference must hold a file of one of {', '.join(by_name)}, such as "
            f"{_reference_path(named, next(iter(by_name), 'clip'))}, got none"
        )
    return by_name


@dataclasses.dataclass(frozen=True, eq=False)
class Protocol:
    """What is the same for every model that is evaluated.

    Attributes:
        by: the networks of features.
        files: how their features come about.
        held_out: patches that are regenerated.
        training: patches among which copies are looked for.
        examples: training patches that classes are predicted from, and that neighbours of held-out
            ones are looked for among; `training` itself where it is small.
        classes: of both; None where the config names no classes.
        shared: where real patches and features are kept.
        seed: of what is generated.
    """

    by: Networks
    files: PatchFiles
    held_out: patch_samples.Sample
    training: patch_samples.Sample
    examples: patch_samples.Sample
    classes: confusion_lib.ClassConfusion | None
    shared: pathlib.Path
    seed: int

    @classmethod
    def of_run(
        cls,
        artifacts: artifacts_lib.Artifacts,
        by: Networks,
        shared: pathlib.Path,
        split: plan.Side = "test",
    ) -> "Protocol":
        """Read what is needed, so that what cannot be evaluated is refused before it is generated;
        held-out patches are those of `split`.

        Raises ValueError for fewer held-out patches than figures need, and for classes, prompts or
        statistics that do not fit.
        """
        config, section = artifacts.config, artifacts.config.evaluate
        held_out = patch_samples.Sample.choose(artifacts.patches(split), section.num_patches)
        if len(held_out) < summary.LEAST:
            raise ValueError(
                f"{summary.LEAST} held-out patches or more are needed, got {len(held_out)}; "
                "--config.evaluate.num_patches=0 evaluates large images alone"
            )
        of_models = artifacts.of_models.patches("train")
        # Of the models' own run: ten thousand are 0.1 % of ten million, and found 1.3 % of a
        # generator that copied everything.
        training = patch_samples.Sample.at_most(of_models, section.num_training)
        # Classes are measured in pixels, one patch after the other.
        is_much = len(training) > EXAMPLES
        examples = patch_samples.Sample.choose(of_models, EXAMPLES) if is_much else training
        files = PatchFiles.of(config)
        # Opened for their errors: published statistics of another extraction are refused now.
        for network in by.values():
            files.published(network)
        classes = confusion_lib.ClassConfusion.of_run(
            section, config.level_data, held_out, examples, lambda: artifacts.slide_names
        )
        seed = rng.seed_of(config.seed, "evaluate/patches")
        return cls(by, files, held_out, training, examples, classes, shared, seed)

    def run(self, model: generator.Generator, folder: pathlib.Path) -> dict[str, Any] | None:
        """Figures under `patches` (by extractor), `denoising_loss`, `diversity`, `memorisation`
        and `confusion`; writes into `folder` the generated patches with their features,
        `generated.png`, `nearest.png`, `confusion.json` and `statistics/`.

        Hosts share the generation and the features; the first measures, None on the others. Pixels
        are in memory block by block; features are mapped.
        """
        pair = regenerated.RegeneratedPatches(
            self.held_out,
            image_files.Files(self.shared / "real", self.files.format),
            image_files.Files(folder / "generated", self.files.format),
        )
        pair.make(model, self.seed)
        by_network = {name: pair.features(network) for name, network in self.by.items()}
        file_format, of_training = pair.real.format, self.of_training()
        of_condition = variation_spread.condition_network(model, self.by["encoder"])
        of_examples = self._of_examples(file_format, of_training, of_condition)

        def measure() -> dict[str, Any]:
            results: dict[str, Any] = {"patches": self._compare(by_network, folder)}
            see = model.config.data.reading.multiband.shown_view
            _write_page(pair.generated, len(self.held_out), folder / "generated.png", see)
            results["denoising_loss"] = denoising_loss.compare(
                model, self.held_out, self.training, self.seed
            )
            judge = lambda patches: self.by["judge"](file_format.through(patches))
            results["diversity"] = variation_spread.compare(
                model, self.held_out, judge, by_network["judge"][0], of_examples, self.seed
            )
            results["memorisation"] = _copies(
                by_network["judge"], of_training, pair, self.training, folder, see
            )
            confusion = self.classes and self.classes.confusion(by_network, of_examples["judge"])
            if confusion:
                atomic.write_json(folder / "confusion.json", confusion)
                results["confusion"] = confusion
            return results

        return hosts.on_first_host("figures of patches", measure)

    def _compare(
        self, by_network: Mapping[str, tuple[Features, Features]], folder: pathlib.Path
    ) -> dict[str, Any]:
        """Figures of generated patches against held-out ones, by network."""
        # Paired: what is generated from a patch shares most of its chance with it, and counted
        # apart the bias was overrated until the interval left the figure.
        return {
            name: compare(
                self.files.extraction(network), self.files.reference, *by_network[name],
                "held-out patches", folder, cases=self.held_out.cases(), paired=True,
            )
            for name, network in self.by.items()
        }  # fmt: skip

    def of_training(self) -> Features | None:
        """The judge's features of training patches, mapped; None but on the first host."""
        return self._features(self.by["judge"], self.training, self.files.format, "training")

    def _of_examples(
        self,
        file_format: image_files.Format,
        of_training: Features,
        condition: extractors.Extractor,
    ) -> dict[str, Features]:
        """Of what classes are predicted from and neighbours are among: the judge's features, and
        what the denoiser would be conditioned on."""
        of = lambda network: self._features(network, self.examples, file_format, "examples")
        is_training = self.examples is self.training
        judged = of_training if is_training else of(self.by["judge"])
        return {"judge": judged, "condition": of(condition)}

    def _features(
        self,
        network: extractors.Extractor,
        sample: patch_samples.Sample,
        file_format: image_files.Format,
        name: str,
    ) -> Features:
        """Features of training patches, as files of held-out ones are kept."""
        read = lambda start, stop: file_format.through(sample.pixels(start, stop))
        return regenerated.extract(network, read, len(sample), self.shared / name)


def _write_page(
    generated: image_files.Files, count: int, path: pathlib.Path, see: bands.View
) -> None:
    """A page of some of the generated patches."""
    # The largest square that they fill.
    side = int(min(count, _SHOWN) ** 0.5)
    shown = np.linspace(0, count - 1, side * side).astype(int)
    page = patch_grid.mosaic(np.stack([generated.one(int(i)) for i in shown]), side)
    pyramid.write_png(path, see(page))


def compare(
    extraction: statistics.Extraction,
    published_in: str,
    real: Features,
    generated: Float[np.ndarray, "M D"],
    dataset: str,
    folder: pathlib.Path,
    *,
    cases: Sequence[str],
    paired: bool,
) -> dict[str, Any]:
    """Figures by one network, with what is needed to repeat them; writes the statistics of the real
    side, called `dataset`, whose vectors are of `cases`. The folder `published_in` may hold
    statistics to compare with in its place. `paired` where each was generated from the real one of
    its index."""
    own = statistics.Statistics(extraction, dataset, moments.Moments.of(real))
    path = folder / "statistics" / f"{extraction.extractor}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    source = {"sha256": statistics.write(path, own), "reference": dataset}
    published = reference(published_in, extraction)
    if published:
        path = _reference_path(published_in, extraction.extractor)
        source = {"sha256": statistics.sha256_of(path), "reference": f"{published.dataset}, {path}"}
    of = published.moments if published else None
    figures = summary.figures(generated, real, of, cases=cases, paired=paired)
    return {"extraction": dataclasses.asdict(extraction) | source} | figures


def reference(folder: str, extraction: statistics.Extraction) -> statistics.Statistics | None:
    """The published statistics of a network in a folder; None where it has none.

    Raises ValueError for statistics of another extraction.
    """
    if not folder or not (path := _reference_path(folder, extraction.extractor)).exists():
        return None
    return statistics.read(path, expected=extraction)


def _reference_path(folder: str, name: str) -> pathlib.Path:
    return pathlib.Path(folder).expanduser() / f"{name}.safetensors"


def _copies(
    features: tuple[Features, Features],
    of_training: Float[np.ndarray, "M D"],
    pair: regenerated.RegeneratedPatches,
    training: patch_samples.Sample,
    folder: pathlib.Path,
    see: bands.View,
) -> dict[str, Any]:
    """Whether generated patches are nearer to training than held-out ones are, by the judge."""
    real, generated = features
    copies = memorisation.compare(generated, real, of_training, power=training.part_of_records)

    def beside(copy: memorisation.Copy) -> tuple[np.ndarray, np.ndarray]:
        return pair.generated.one(copy.generated), training.patch(copy.training)[1]

    rows = [np.concatenate(beside(copy), axis=1) for copy in copies.worst]
    pyramid.write_png(folder / "nearest.png", see(np.concatenate(rows)))
    result = dataclasses.asdict(copies)
    del result["worst"]
    # Pages speak of similarity, 1 − the cosine distance.
    pairs = [{"similarity": 1 - copy.distance} for copy in copies.worst]
    return result | {"threshold": 1 - copies.threshold, "pairs": pairs}
