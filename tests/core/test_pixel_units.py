"""Metres and microns: one number, whichever says it."""

import fractions

import pytest

from ssldiff_jax.core import pixel_units


@pytest.mark.parametrize("metres", [1, 5, 10, 0.6, 0.1, 0.3048, 30.0, 250, 40_075_000 / 5400, 1e-7])
def test_microns_are_the_nearest_number_to_a_million_times_what_is_written(metres):
    """By exact fractions: a product of floats may be the next one."""
    exact = fractions.Fraction(repr(float(metres))) * 10**6
    assert pixel_units.microns(metres) == float(exact)


@pytest.mark.parametrize(
    ("mpp", "words"),
    [
        (0.5, "0.5 µm/px"), (8, "8 µm/px"), (999.9, "999.9 µm/px"), (1000, "1 mm/px"),
        (6e5, "600 mm/px"), (1e6 * (1 - 1e-12), "1 m/px"), (5e6, "5 m/px"), (250e6, "250 m/px"),
        (40_075e9 / 5400, "7.4213 km/px"),
    ],
)  # fmt: skip
def test_a_scale_in_words(mpp, words):
    assert pixel_units.per_pixel(mpp) == words


def test_a_scale_is_one_number():
    resolved = lambda mpp, metres, unsaid=0.5: pixel_units.resolved(
        "config.data.patch_mpp", mpp, metres, unsaid=unsaid
    )
    assert resolved(0.25, 0.0) == 0.25
    assert resolved(0.5, 5.0) == 5e6
    assert resolved(5e6, 5.0) == 5e6
    message = (
        r"config\.data\.patch_metres and config\.data\.patch_mpp must say one scale, got 5 m "
        r"\(5e\+06 µm\) and 0\.25 µm: set one of them"
    )
    with pytest.raises(ValueError, match=message):
        resolved(0.25, 5.0)
    for wrong in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=r"patch_metres must be metres per pixel, or 0, got"):
            resolved(0.5, wrong)
