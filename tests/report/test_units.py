"""Lengths and sizes in words: µm for slides, metres for scenes."""

import pytest

from ssldiff_jax.report import units


@pytest.mark.parametrize(
    ("um", "said"),
    [
        (0.25, "250 nm"), (1, "1 µm"), (999, "999 µm"), (1000, "1 mm"), (2.5e6, "2.5 m"),
        (123_456_789, "123 m"), (4e9, "4 km"), (5e12, "5,000 km"),
    ],
)  # fmt: skip
def test_length_has_the_unit_of_its_size(um, said):
    assert units.length(um) == said


@pytest.mark.parametrize(
    ("mpp", "said"),
    [
        (0.5, "0.5 µm per pixel (20×)"), (0.25, "0.25 µm per pixel (40×)"),
        (0.2525, "0.253 µm per pixel (40×)"), (0.0499, "0.0499 µm per pixel (200×)"),
        (2.0, "2 µm per pixel (5×)"), (1e6, "1 m per pixel"), (5e8, "500 m per pixel"), (None, ""),
    ],
)  # fmt: skip
def test_resolution_of_slides_has_a_magnification_and_of_scenes_metres(mpp, said):
    assert units.resolution(mpp) == said


def test_size_is_width_by_height_in_pixels_and_one_unit():
    assert units.size(512, 1024, 0.5) == "1,024 × 512 px, 512 × 256 µm"
    assert units.size(20_000, 4000, 0.5) == "4,000 × 20,000 px, 2 × 10 mm"
    assert units.size(256, 256, 1e6) == "256 × 256 px, 256 × 256 m"
    assert units.size(8, 6, None) == "6 × 8 px"
