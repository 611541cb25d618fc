"""configs/tcga.py, shrunk to what a minute allows, through every stage on several slides."""

import pathlib

import numpy as np
import pytest
from PIL import Image

from configs import tcga
from ssldiff_jax.core import files
from ssldiff_jax.data import demo_slide
from ssldiff_jax.slides import slide
from ssldiff_jax.stages import launch


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


def _shrunk(slides: pathlib.Path):
    c = tcga.get_config()
    c.data.slides = str(slides)
    c.data.mpp = 0.5
    c.data.holdout.fraction = 0.5
    c.data.records.min_tissue = 0.1
    c.data.records.record_px = c.data.records.stride_px = c.data.crops.patch_px = 64
    c.data.regions.count, c.data.regions.rows, c.data.regions.cols = 1, 3, 3
    for section in (c.encoder, c.judge):
        section.model.vit.image_px, section.model.vit.patch_px = 64, 16
        section.model.vit.width, section.model.vit.depth, section.model.vit.num_heads = 16, 1, 2
        section.model.dino.num_prototypes, section.model.dino.head_width = 32, 32
        section.model.dino.num_local, section.model.dino.local_px = 1, 32
    c.autoencoder.model.conv.channels, c.autoencoder.model.conv.num_res_blocks = 8, 1
    c.denoiser.unet.channels, c.denoiser.unet.context_dim = 16, 8
    c.denoiser.unet.channel_mult, c.denoiser.unet.attention_levels = (1, 2), (1,)
    c.denoiser.unet.num_res_blocks = 1
    grids, network = c.prior.grids, c.prior.network
    grids.side, grids.most_cells, grids.count, grids.count_test = 2, 3, 12, 8
    network.width, network.depth, network.num_heads = 16, 1, 2
    c.prior.solver.num_solver_steps = 2
    c.evaluate.num_patches, c.evaluate.num_training = 8, 12
    for section in (c.encoder, c.judge, c.autoencoder, c.denoiser, c.prior):
        train = section.train
        train.num_steps, train.batch_size, train.log_every, train.checkpoint_every = 2, 2, 1, 2
    c.sample.conditioning = "interpolated"
    c.sample.windows.mode, c.sample.windows.stride = "overlap", 8
    c.sample.windows.weights = "tapered"
    c.sample.solver.name, c.sample.solver.num_solver_steps, c.sample.solver.eta = "ddim", 2, 0.5
    c.sample.chunk, c.sample.num_variations = 4, 1
    c.sample.decode.tile, c.sample.decode.overlap = 16, 4
    return c


@pytest.mark.slow
def test_every_stage_of_the_published_config_runs(slides, tmp_path):
    launch.launch(_shrunk(slides).to_dict(), tmp_path)

    metrics = files.read_json(tmp_path / "report" / "metrics.json")
    image = np.asarray(Image.open(tmp_path / "sample" / "image_0.png"))
    assert image.shape == (192, 192, 3)
    # Windows of 16 latents, 8 apart, over 48 × 48: 5 × 5, in chunks of 4, guided, 2 steps.
    assert metrics["large_image"]["unet_forwards"] == 28 * 2 * 2
    assert np.isfinite(metrics["crop_fd_uncorrected"])
    facts = files.read_json(tmp_path / "patches" / "done.json")["facts"]
    assert facts["records"]["train"] > 0
    assert facts["records"]["test"] > 0
    # Records are no larger than patches here: nothing can be moved, but views can be made.
    for name in ("encoder", "judge"):
        facts = files.read_json(tmp_path / name / "encoder.json")
        assert facts["retrieval_top1"] == {}
        assert 0 <= facts["retrieval_of_views"] <= 1
        assert facts["effective_rank"] <= facts["effective_rank_of_noise"] * 1.05
    lines = (tmp_path / "encoder" / "metrics.jsonl").read_text()
    assert "center_entropy" in lines
