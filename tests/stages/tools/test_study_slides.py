"""The study of configs/tcga_study.py on small slides of real tissue: bags are slides, labelled by
their cases."""

import numpy as np
import pytest

from configs import tcga_study, tiny
from ssldiff_jax.core import schema
from ssldiff_jax.data import demo_slide, plan
from ssldiff_jax.formats import atomic
from ssldiff_jax.runs import launch
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.slides import pyramid
from ssldiff_jax.slides import slide as slide_lib
from ssldiff_jax.stages import table
from ssldiff_jax.stages.tools.study import task

pytestmark = pytest.mark.e2e
FRACTION = 0.4
CASES = {"train": 6, "test": 4}


def cases():
    """By split, names of cases that fall into it."""
    found = {split: [] for split in CASES}
    for number in range(100):
        name = f"TCGA-AA-{number:04d}"
        split = "test" if plan.is_held_out(name, FRACTION) else "train"
        if len(found[split]) < CASES[split]:
            found[split].append(name)
    return found


def write_slides(folder):
    """A slide for each case, of the first training case two; every other is pale.

    Returns the label of each case.
    """
    slide = slide_lib.open_slide(demo_slide.demo_slide())
    tissue = slide.read_region(300, 300, 320, 320, mpp=0.5)
    slide.close()
    label, written = {}, 0
    for names in cases().values():
        for i, name in enumerate(names):
            label[name] = ("dark", "pale")[i % 2]
            pixels = tissue if label[name] == "dark" else 255 - (255 - tissue) // 3
            for number in range(2 if len(label) == 1 else 1):
                # Slides of the same pixels would be one.
                shifted, written = np.roll(pixels, 25 * written, axis=1), written + 1
                path = folder / f"{name}-{number}.tiff"
                pyramid.write_pyramid(path, shifted, pyramid.Scale(0.5))
    return label


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slides")
    label = write_slides(folder)
    # The second training case, a pale one, is of no known subtype.
    unknown = sorted(cases()["train"])[1]
    rows = [f"{case},{name}" for case, name in label.items() if case != unknown]
    (folder / "subtypes.csv").write_text("\n".join(["case,label", *rows]))
    config = tiny.get_config()
    config.stages = "patches,encoder,embeddings,autoencoder,latents,denoiser,study"
    # After four steps white embeddings are noise for the most part.
    config.encoder.model.origin = "mean"
    config.data.slides = f"{folder}/*.tiff"
    config.data.engine.processes = 1
    config.data.holdout.by, config.data.holdout.fraction = "case", FRACTION
    config.data.holdout.case_regex = r"TCGA-\w{2}-\w{4}"
    config.data.records.record_px = config.data.records.stride_px = 80
    config.data.records.min_tissue = 0.0
    config.data.tissue.min_saturation = config.data.tissue.max_saturation = 0.0
    config.data.tissue.min_luminance = 0.0
    config.study.update(tcga_study.get_config().study)
    study = config.study
    study.fractions, study.seeds, study.resamples = (0.2, 1.0), 2, 50
    study.bags.labels, study.bags.cells = str(folder / "subtypes.csv"), 5
    study.bags.models = ("clam", "dsmil")
    study.bags.network.width, study.bags.network.hidden = 16, 8
    study.bags.network.fit.num_steps, study.bags.network.fit.learning_rate = 60, 1e-2
    launch.launch(config.to_dict(), folder / "run", table.STAGES)
    return atomic.read_json(folder / "run" / "study" / "results.json")


def test_slides_of_labelled_cases_are_the_bags(results):
    told = results["tasks"]["bags"]
    # Two slides of the first case, none of the second.
    assert told["classes"] == {"train": {"dark": 4, "pale": 2}, "test": {"dark": 2, "pale": 2}}
    assert told["generated"] == 6
    counts = {  # of a fifth, one slide of each class
        (0.2, "real"): (2, 0), (0.2, "synthetic"): (0, 2), (0.2, "real + synthetic"): (2, 2),
        (1.0, "real"): (6, 0), (1.0, "synthetic"): (0, 6), (1.0, "real + synthetic"): (6, 6),
    }  # fmt: skip
    assert [
        (r["model"], r["fraction"], r["mixture"], r["real"], r["synthetic"], r["test"])
        for r in results["rows"]
    ] == [
        (model, fraction, mixture, *counts[fraction, mixture], 4)
        for model in ("clam", "dsmil")
        for fraction in (0.2, 1.0)
        for mixture in task.MIXTURES
    ]


def test_slides_that_differ_are_told_apart(results):
    for row in results["rows"]:
        assert 0 <= row["auc"]["low"] <= row["auc"]["mean"] <= row["auc"]["high"] <= 1
        if row["mixture"] == "real" and row["fraction"] == 1:
            assert row["auc"]["mean"] == 1


def test_a_study_depends_on_its_table_of_labels(tmp_path):
    path, config = tmp_path / "subtypes.csv", tiny.get_config()
    path.write_text("case,label\na,dark\n")
    config.study.bags.labels = str(path)
    of_regions = schema.build(run_config.RunConfig, config.to_dict())
    config.study.bags.of = "slides"
    of_slides = schema.build(run_config.RunConfig, config.to_dict())
    inputs = table.STAGES["study"].inputs
    before = inputs(of_slides)
    path.write_text("case,label\na,dark\nb,pale\n")
    assert inputs(of_slides) != before
    path.unlink()
    with pytest.raises(launch.USER_ERRORS, match=r"config\.study\.bags\.labels must be a file"):
        inputs(of_slides)
    # Regions are labelled by their pixels.
    assert inputs(of_regions) is None
