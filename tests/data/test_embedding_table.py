"""Embeddings as AnnData: read back by anndata."""

import numpy as np
import pytest

from ssldiff_jax.data import embedding_table
from ssldiff_jax.report import cells, placed_cells
from ssldiff_jax.slides import optional

ODD = ['=HYPERLINK("x")', "<script>alert(1)</script>", 'a"b\\c', "two\nlines", "Gefäß/🔬", ""]


def placed(count=6, **more):
    rng = np.random.default_rng(0)
    values = {"encoder: similarity": np.linspace(0, 1, 6), "judge: retrieval rank": np.arange(6)}
    figures = cells.CellFigures(values, classes=ODD[:count], class_names=ODD[:5])
    lattice = cells.Lattice(2, 3, 64)
    vectors = {
        name: rng.normal(size=(6, dim)).astype(np.float32)
        for name, dim in (("encoder", 5), ("judge", 3))
    }
    on_slide = lattice.seen(2.0, 736, 2077)
    return placed_cells.PlacedCells(lattice, on_slide, figures, vectors, 0.5)


def test_a_table_of_cells_comes_back_as_anndata_reads_it(tmp_path):
    anndata = pytest.importorskip("anndata")
    given = placed()
    given.write(tmp_path, "cells", ("h5ad",))
    assert [path.name for path in tmp_path.iterdir()] == ["cells.h5ad"]
    table = anndata.read_h5ad(tmp_path / "cells.h5ad")
    np.testing.assert_array_equal(table.X, given.embeddings["encoder"])
    np.testing.assert_array_equal(table.obsm["judge"], given.embeddings["judge"])
    # Squares of 64 px, two rows of three; on a slide of half the microns per pixel, twice as far.
    centres = np.array([[32 + 64 * col, 32 + 64 * row] for row in range(2) for col in range(3)])
    np.testing.assert_array_equal(table.obsm["spatial"], centres)
    np.testing.assert_array_equal(
        table.obsm["spatial_slide"], 2 * (centres + np.array([736, 2077]))
    )
    assert list(table.obs_names[:4]) == [
        f"row {r}, column {c}" for r, c in zip((0, 0, 0, 1), (0, 1, 2, 0), strict=True)
    ]
    np.testing.assert_array_equal(table.obs["encoder_similarity"], np.linspace(0, 1, 6))
    np.testing.assert_array_equal(table.obs["judge_retrieval_rank"], np.arange(6))
    assert table.obs["class"].tolist()[:5] == ODD[:5]
    assert table.obs["class"].isna().tolist() == [False] * 5 + [True]
    assert set(table.obs["class"].cat.categories) == set(ODD[:5])
    assert dict(table.uns) == {
        "encoder": "encoder", "mpp": 0.5, "patch_size": 64, "patch_size_slide": 128
    }  # fmt: skip


@pytest.mark.parametrize("formats", [(), ("geojson",), ("geojson", "h5ad")])
def test_files_of_cells_are_those_that_were_asked_for(tmp_path, formats):
    if "h5ad" in formats:
        pytest.importorskip("anndata")
    placed().write(tmp_path, "cells", formats)
    names = {"geojson": {"cells.geojson", "cells_slide.geojson"}, "h5ad": {"cells.h5ad"}}
    assert {p.name for p in tmp_path.iterdir()} == set().union(*(names[f] for f in formats))


def test_figures_of_other_cells_become_no_table(tmp_path):
    with pytest.raises(ValueError, match="classes must have a value for each of 6 cells, got 4"):
        placed(count=4).write(tmp_path, "cells", ("h5ad",))
    assert not list(tmp_path.iterdir())


def test_a_table_without_its_library_says_what_to_install(tmp_path, monkeypatch):
    found = optional.importlib.util.find_spec
    only = lambda asked: None if asked == "anndata" else found(asked)
    monkeypatch.setattr(optional.importlib.util, "find_spec", only)
    table = embedding_table.EmbeddingTable(np.zeros((1, 2), np.float32), ["a"], {}, {}, {})
    with pytest.raises(ValueError, match=r"to write h5ad needs anndata, got none: pip install"):
        table.write(tmp_path / "a.h5ad")
    assert not list(tmp_path.iterdir())
