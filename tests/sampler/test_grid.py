import json
import os
import pathlib

import numpy as np
import pytest
from safetensors.numpy import load_file

from ssldiff_jax.sampler import grid

GOLDEN = pathlib.Path(
    os.environ.get("SSLDIFF_GOLDEN", pathlib.Path(__file__).parents[1] / "golden")
)
# Cases of the reference in their order; where one vector is zero, the reference gives NaN.
CASES = (
    "generic",
    "generic_different_norms",
    "identical",
    "parallel_scaled",
    "antiparallel",
    "near_parallel_above_threshold",
    "near_parallel_below_threshold",
    "near_antiparallel_below_threshold",
    "near_antiparallel_above_threshold",
    "orthogonal",
    "zero_second",
    "zero_first",
    "both_zero",
)


@pytest.fixture(scope="module")
def golden():
    return load_file(GOLDEN / "lrdm_slerp.safetensors")


@pytest.fixture(scope="module")
def slerped(golden):
    """(case, t, D)."""
    a, b = (np.repeat(golden[f"input.{name}"][:, None], 5, axis=1) for name in ("v0", "v1"))
    t = np.broadcast_to(golden["input.t"].astype(np.float32), (13, 5))
    return grid.slerp(a, b, t)


@pytest.mark.parametrize("case", CASES[:10])
def test_slerp_is_the_references(golden, slerped, case):
    index = CASES.index(case)
    atol = 1e-3 if case == "near_antiparallel_below_threshold" else 5e-6
    expected = golden["output.result"][index]
    np.testing.assert_allclose(slerped[index], expected, rtol=1e-5, atol=atol)


@pytest.mark.parametrize("case", CASES[10:])
def test_slerp_with_a_zero_vector_is_the_line(golden, slerped, case):
    index = CASES.index(case)
    a, b = golden["input.v0"][index], golden["input.v1"][index]
    assert min(np.abs(a).max(), np.abs(b).max()) == 0
    line = a + golden["input.t"][:, None] * (b - a)
    np.testing.assert_allclose(slerped[index], line, atol=1e-6)


interpolate = grid.interpolate


def centres(rows, cols):
    return np.stack(np.mgrid[:rows, :cols], axis=-1).reshape(-1, 2).astype(np.float32) + 0.5


@pytest.mark.parametrize("method", ["slerp", "lerp"])
def test_centres_give_the_cells(method):
    cells = np.random.default_rng(0).normal(size=(2, 5, 4)).astype(np.float32)
    found = interpolate(cells, centres(2, 5), method)
    np.testing.assert_allclose(found, cells.reshape(10, 4), atol=1e-5)


@pytest.mark.parametrize("method", ["slerp", "lerp"])
def test_edges_continue(method):
    cells = np.random.default_rng(0).normal(size=(2, 5, 4)).astype(np.float32)
    outside = np.float32([[-3, -3], [0, 2.5], [9, 4.5], [1.5, 7], [2, 5], [0.5, 0]])
    found = interpolate(cells, outside, method)
    expected = [cells[0, 0], cells[0, 2], cells[1, 4], cells[1, 4], cells[1, 4], cells[0, 0]]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_lerp_is_bilinear_rows_first():
    """On a plane through the cells, bilinear interpolation is the plane."""
    plane = lambda points: np.stack([10 * points[:, 0] + points[:, 1], 0 * points[:, 0] + 1], -1)
    cells = plane(centres(2, 5)).reshape(2, 5, 2).astype(np.float32)
    points = np.random.default_rng(0).uniform([0.5, 0.5], [1.5, 4.5], (30, 2)).astype(np.float32)
    np.testing.assert_allclose(interpolate(cells, points, "lerp"), plane(points), atol=1e-4)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_embeddings_are_float32_whatever_the_grid_is_stored_as(dtype):
    cells = np.random.default_rng(0).normal(size=(2, 5, 4)).astype(dtype)
    found = interpolate(cells, np.array([[1.2, 3.1]]), "slerp")
    assert found.dtype == np.float32
    np.testing.assert_allclose(
        found, interpolate(cells.astype(np.float32), np.float32([[1.2, 3.1]]), "slerp"), atol=1e-6
    )


def test_slerp_walks_the_circle():
    """Cells on an arc, one angle a column: between them the angle grows evenly, the length not."""
    angle = 0.6 * np.arange(3)
    cells = np.stack([np.cos(angle), np.sin(angle)], axis=-1)[None].astype(np.float32)
    place = np.linspace(0.5, 2.5, 9)
    points = np.stack([np.full(9, 0.5), place], axis=-1).astype(np.float32)
    found = interpolate(cells, points, "slerp")
    np.testing.assert_allclose(np.linalg.norm(found, axis=-1), 1, atol=1e-5)
    np.testing.assert_allclose(np.arctan2(found[:, 1], found[:, 0]), 0.6 * (place - 0.5), atol=1e-5)


def test_the_cases_are_the_golden_files():
    description = GOLDEN / "lrdm_slerp.json"
    if not description.exists():
        pytest.skip(f"{description} is not there; set SSLDIFF_GOLDEN")
    assert tuple(json.loads(description.read_text())["cases"]) == CASES


@pytest.mark.parametrize("num_tokens", [1, 4])
def test_grids_are_blended_token_by_token(num_tokens):
    a, b = (np.random.default_rng(i).normal(size=(2, 3, num_tokens * 5)) for i in range(2))
    blended = grid.blended(a.astype(np.float32), b.astype(np.float32), 0.3, num_tokens)
    for row, col, number in np.ndindex(2, 3, num_tokens):
        at = np.s_[row, col, 5 * number : 5 * number + 5]
        angle = np.arccos(a[at] @ b[at] / np.linalg.norm(a[at]) / np.linalg.norm(b[at]))
        expected = (np.sin(0.7 * angle) * a[at] + np.sin(0.3 * angle) * b[at]) / np.sin(angle)
        np.testing.assert_allclose(blended[at], expected, atol=1e-4)
