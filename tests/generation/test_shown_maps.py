"""Maps behind the conditions of windows."""

import numpy as np
import pytest

from ssldiff_jax.generation import shown_maps


def test_conditions_and_maps_part_and_guidance_keeps_the_map():
    maps = shown_maps.ShownMaps(3, 2, 4)
    assert maps.dim == 3 + 16
    condition = np.arange(2 * 19, dtype=np.float32).reshape(2, 19) + 1
    own, shown = maps.parted(condition)
    np.testing.assert_array_equal(own, condition[:, :3])
    np.testing.assert_array_equal(shown[1, 1, 0], condition[1, 3 + 8 : 3 + 12])
    null = np.asarray(maps.null(condition))
    assert not null[:, :3].any()
    np.testing.assert_array_equal(null[:, 3:], condition[:, 3:])
    with pytest.raises(ValueError, match=r"must be shown a map .*of 3 numbers"):
        maps.parted(condition[:, :3])


def test_without_maps_nothing_changes():
    maps = shown_maps.ShownMaps(3, 2, 0)
    condition = np.ones((2, 3), np.float32)
    assert maps.dim == 3
    assert maps.parted(condition) == (condition, None)
    assert not np.asarray(maps.null(condition)).any()
