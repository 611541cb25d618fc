"""Images that are folders: what a killed process left of one; writers that are not installed."""

import sys

import numpy as np
import pytest

from ssldiff_jax.formats import atomic
from ssldiff_jax.runs.config import sample
from ssldiff_jax.slides import optional, pyramid, whole_file

PIXELS = np.zeros((64, 48, 3), np.uint8)


@pytest.mark.parametrize("name", ["image_0.ome.zarr", "image.dcm"])
def test_a_folder_that_a_killed_process_left_is_known_by_its_name(tmp_path, name):
    for kept in (".image.autumn_1.new", ".0123456789ab", ".image_0", "image.dcm.01234567"):
        (tmp_path / kept).mkdir()
    writing = whole_file.replacing_folder(tmp_path / name)
    temporary = writing.__enter__()
    temporary.mkdir()
    (temporary / "0").write_bytes(bytes(100))
    assert list(atomic.unfinished(tmp_path)) == [temporary]
    assert atomic.remove([temporary]) == 100
    assert not temporary.exists()


@pytest.mark.parametrize("name", sorted(set(optional.WRITERS) & set(pyramid.FORMATS)))
def test_a_format_without_its_library_says_what_to_install(tmp_path, monkeypatch, name):
    package, install = optional.WRITERS[name]
    found = optional.importlib.util.find_spec
    only = lambda asked: None if asked == package else found(asked)
    monkeypatch.setattr(optional.importlib.util, "find_spec", only)
    monkeypatch.delitem(sys.modules, package, raising=False)
    with pytest.raises(ValueError, match=r"to write .* needs") as refused:
        pyramid.FORMATS[name](tmp_path / f"a.{name}", PIXELS, pyramid.Scale(0.5))
    assert install in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_every_format_may_be_asked_for():
    output = sample.OutputConfig(formats=tuple(pyramid.FORMATS), ngff="0.4", quality=90)
    assert {"ome.zarr", "dcm"} <= set(output.formats)
