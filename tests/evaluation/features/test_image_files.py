"""Images come back from files as their format keeps them."""

import numpy as np
import pytest

from ssldiff_jax.evaluation.features import image_files

PATCHES = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8)


def test_jpeg_loses_something_and_png_nothing():
    np.testing.assert_array_equal(image_files.Format().through(PATCHES), PATCHES)
    coarse, fine = (
        np.abs(image_files.Format(quality).through(PATCHES) - PATCHES.astype(int))
        for quality in (30, 95)
    )
    assert coarse.mean() > fine.mean() > 0


@pytest.mark.parametrize("quality", [0, 80])
def test_files_give_what_their_format_keeps(tmp_path, quality):
    kept = image_files.Format(quality)
    found = image_files.Files(tmp_path / "drawn", kept)
    found.write(5, PATCHES)
    np.testing.assert_array_equal(found.read(5, 8), kept.through(PATCHES))
    np.testing.assert_array_equal(found.one(6), kept.through(PATCHES)[1])
    assert found.has(5, 8)
    assert not found.has(4, 8)
    assert not found.has(5, 9)
    suffix = ".jpg" if quality else ".png"
    assert sorted(path.name for path in found.folder.iterdir()) == [
        f"00000{i}{suffix}" for i in (5, 6, 7)
    ]
