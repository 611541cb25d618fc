"""Names of files and folders, made from what they are of."""

import pytest

from ssldiff_jax.core import names


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["a/x.svs"], ["x"]),
        (["a/x.svs", "b/x.svs", "b/y.svs"], ["a_x", "b_x", "y"]),
        (["1/a/x.svs", "2/a/x.svs"], ["1_a_x", "2_a_x"]),
        (["/a/x.svs", "/a/x.tif"], ["a_x.svs", "a_x.tif"]),
        (["gs://bucket/a/x.svs", "s3://bucket/a/x.svs"], ["gs_bucket_a_x", "s3_bucket_a_x"]),
        # Where case does not count they would be one file.
        (["a/X.svs", "b/x.svs"], ["a_X", "b_x"]),
        # Folders that spell what a name does.
        (["a_x.svs", "b/a/x.svs", "c/a/x.svs"], ["a_x.svs", "b_a_x", "c_a_x"]),
        ([], []),
    ],
)
def test_names_tell_paths_apart(paths, expected):
    assert names.distinct(paths) == expected


@pytest.mark.parametrize(
    "paths",
    [
        ["a/x.svs", "a_x.svs", "b/x.svs", "b_x.svs"],
        ["x.svs", "X.svs", "x_0.svs", "x.svs_0.svs"],
        ["a/b/x.svs", "a_b/x.svs", "a/b_x.svs", "a_b_x.svs"],
    ],
)
def test_names_differ_whatever_the_paths_spell(paths):
    found = names.distinct(paths)
    assert len({name.casefold() for name in found}) == len(paths)
    assert not any("/" in name for name in found)
