"""configs/tcga.py, shrunk to what a minute allows, through every stage on several slides."""

import pathlib

import numpy as np
import pytest
import small_configs
from PIL import Image

from configs import tcga
from ssldiff_jax.data import demo_slide
from ssldiff_jax.formats import atomic
from ssldiff_jax.runs import launch
from ssldiff_jax.slides import slide
from ssldiff_jax.stages import table


@pytest.fixture(scope="module")
def slides(tmp_path_factory) -> pathlib.Path:
    """Four pieces of the real slide, each a case of its own; the hash of their names puts
    some in either split."""
    folder = tmp_path_factory.mktemp("slides")
    whole = slide.open_slide(demo_slide.demo_slide())
    for i, top in enumerate((900, 1300, 1700, 2300)):
        piece = whole.read_region(top, 800, 384, 384, mpp=whole.mpp)
        Image.fromarray(piece).save(folder / f"TCGA-AA-000{i}-01Z.png")
    return folder


@pytest.mark.slow
def test_every_stage_of_the_published_config_runs(slides, tmp_path):
    config = small_configs.published(tcga.get_config())
    config.data.slides = str(slides)
    config.data.mpp, config.data.holdout.fraction = 0.5, 0.5
    launch.launch(config.to_dict(), tmp_path, table.STAGES)

    metrics = atomic.read_json(tmp_path / "report" / "metrics.json")
    image = np.asarray(Image.open(tmp_path / "sample" / "image_0.png"))
    assert image.shape == (192, 192, 3)
    # Windows of 16 latents, 8 apart, over 48 × 48: 5 × 5, in chunks of 4, guided, 2 steps.
    assert metrics["large_image"]["unet_forwards"] == 28 * 2 * 2
    assert np.isfinite(metrics["crop_fd_uncorrected"])
    facts = atomic.read_json(tmp_path / "patches" / "done.json")["facts"]
    assert facts["records"]["train"] > 0
    assert facts["records"]["test"] > 0
    # Records are no larger than patches here: nothing can be moved, but views can be made.
    for name in ("encoder", "judge"):
        facts = atomic.read_json(tmp_path / name / "encoder.json")
        assert facts["retrieval_top1"] == {}
        assert 0 <= facts["retrieval_of_views"] <= 1
        assert facts["effective_rank"] <= facts["effective_rank_of_noise"] * 1.05
    lines = (tmp_path / "encoder" / "metrics.jsonl").read_text()
    assert "center_entropy" in lines
