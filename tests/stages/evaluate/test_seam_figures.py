"""Seams of drawn images: what is read of stage sample, and what is told of it."""

import json

import numpy as np
import pytest

from ssldiff_jax.evaluation.metrics import large_image
from ssldiff_jax.runs import stage
from ssldiff_jax.stages.evaluate import seam_figures

SIDE, FACTOR = 32, 4


def noise(seed):
    return np.random.default_rng(seed).integers(100, 120, (160, 192, 3)).astype(np.uint8)


def with_step(image, row, grey):
    """Bands of 32 rows that are brighter in turns, the first border at `row`."""
    band = (np.arange(len(image)) - row) // SIDE % 2
    return (image + grey * band[:, None, None]).astype(np.uint8)


def test_each_image_is_measured_at_its_own_lines(tmp_path):
    at = (12, 20, 24)  # of the last step, another in each image
    for i, row in enumerate(at):
        last = {"rows": list(range(row, 160, SIDE)), "cols": []}
        before = {"rows": list(range(row - 8, 160, SIDE)), "cols": [40]}
        told = {"window_lines": [last, before, before]}
        (tmp_path / f"image_{i}.json").write_text(json.dumps(told))
    pairs = [
        large_image.Pair(with_step(noise(i), row, 12), noise(10 + i)) for i, row in enumerate(at)
    ]
    found = seam_figures.of_images(tmp_path, pairs, SIDE, FACTOR)
    energy = 2 * (20**2 - 1) / 12  # of a step between two of 20 even grey levels
    last = found["last_step"]
    assert last["generated"]["value"] == pytest.approx(1 + 12**2 / energy, rel=0.05)
    assert 0 < last["generated"]["error"] < 0.1
    assert last["generated"]["count"] == last["real"]["count"] == 3
    assert last["real"]["value"] == pytest.approx(1, abs=0.05)
    assert len(found["earlier_steps"]) == 2
    for ruler in (*found["earlier_steps"], found["cell_borders"]):
        for of in ("generated", "real"):
            assert ruler[of]["value"] == pytest.approx(1, abs=0.05)
    worst = found["worst_phase"]
    assert worst["generated"]["value"] > 3 > 1.2 > worst["real"]["value"] > 1


def test_steps_across_cells(tmp_path):
    """Each cell a little brighter than its neighbours: in grey levels, not their squares."""
    (tmp_path / "image_0.json").write_text(json.dumps({"window_lines": [{"rows": [], "cols": []}]}))
    flat = np.full((160, 192, 3), 100, np.uint8)
    flat += (np.arange(192) // FACTOR % 2 * 2).astype(np.uint8)[None, :, None]  # steps of 2
    flat += (np.arange(160) // FACTOR % 2 * 2).astype(np.uint8)[:, None, None]
    board = (np.arange(160)[:, None] // SIDE + np.arange(192) // SIDE) % 2
    drawn = (flat + 10 * board[..., None]).astype(np.uint8)
    found = seam_figures.of_images(tmp_path, [large_image.Pair(drawn, flat)], SIDE, FACTOR)
    assert found["cell_borders"]["real"] == {"value": 1.0, "error": None, "count": 1}
    assert found["cell_borders"]["generated"]["value"] == pytest.approx(10 / 2, rel=0.01)
    assert found["last_step"] == {"generated": None, "real": None}
    assert found["earlier_steps"] == []


def test_a_run_that_wrote_no_lines_is_told_how_to(tmp_path):
    (tmp_path / "image_0.json").write_text(json.dumps({"height": 160}))
    pairs = [large_image.Pair(noise(0), noise(1))]
    with pytest.raises(stage.WorkdirError, match=r"image_0.json must have the window_lines"):
        seam_figures.of_images(tmp_path, pairs, SIDE, FACTOR)


def test_borders_of_patches():
    real = np.concatenate([noise(i) for i in range(4)])
    shade = np.zeros((SIDE, SIDE, 1), int)
    shade[:4], shade[-4:], shade[:, :4], shade[:, -4:] = -5, -5, -5, -5
    drawn = (real + np.tile(shade, (20, 6, 1))).astype(np.uint8)
    found = seam_figures.of_patches([real], [drawn], SIDE, FACTOR)
    border = found["border"]
    assert border["generated"]["count"] == border["real"]["count"] == 120
    assert border["generated"]["value"] == pytest.approx(-5, abs=4 * border["generated"]["error"])
    assert border["real"]["value"] == pytest.approx(0, abs=4 * border["real"]["error"])
    assert 0 < border["real"]["error"] < 0.1
    profile = np.array(found["profile"]["generated"]) - found["profile"]["real"]
    np.testing.assert_allclose(profile, [-5] * 4 + [0] * 4, atol=1e-9)
