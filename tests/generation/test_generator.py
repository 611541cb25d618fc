"""A run as a Python object: what it takes, what it gives back, what it says of itself."""

import io
import logging
import pathlib
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

import ssldiff_jax
from configs import tiny
from ssldiff_jax import slides
from ssldiff_jax.core import schema
from ssldiff_jax.runs import launch, stage
from ssldiff_jax.runs.workdir import stored_config
from ssldiff_jax.stages import table
from ssldiff_jax.train import loop


@pytest.fixture(scope="module")
def generated(generator, region):
    return generator.generate(generator.embed(region), seed=1)


def test_an_image_is_an_array_a_picture_and_a_file(generated, region, tmp_path):
    pixels = np.asarray(generated)
    assert pixels.shape == region.shape
    assert pixels.dtype == np.uint8
    shown = Image.open(io.BytesIO(generated._repr_png_()))
    np.testing.assert_array_equal(np.asarray(shown), pixels)
    written = Image.open(generated.save(tmp_path / "a.png"))
    np.testing.assert_array_equal(np.asarray(written), pixels)
    assert "128 × 128 px, 0.5 µm/px" in repr(generated)
    assert np.asarray(generated, np.float32).dtype == np.float32


@pytest.mark.parametrize("name", ["a.tif", "a.ome.tif", "a.cog.tif", "a.dzi", "A.JPG"])
def test_every_ending_is_written_with_the_scale(generated, name, tmp_path):
    path = generated.save(str(tmp_path / name))
    assert path.exists()
    if name in ("a.tif", "a.ome.tif"):
        assert slides.open_slide(path).mpp == pytest.approx(0.5)


def test_another_ending_is_refused(generated, tmp_path):
    with pytest.raises(ValueError, match=r"must end with one of \.png, \.tif, .*got 'a.bmp'"):
        generated.save(tmp_path / "a.bmp")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda x: x / 255, r"float64 of shape \(128, 128, 3\) with values from 0 to 1"),
        (lambda x: x[..., 0], r"uint8 of shape \(128, 128\)"),
        (lambda x: x[..., [0, 1, 2, 2]], r"uint8 of shape \(128, 128, 4\)"),
        (lambda x: x[None], r"uint8 of shape \(1, 128, 128, 3\)"),
        (lambda x: x.astype(np.int16), "int16"),
        (lambda x: x[:0], r"uint8 of shape \(0, 128, 3\)"),
    ],
    ids=["float", "gray", "rgba", "batch", "int16", "empty"],
)
@pytest.mark.parametrize("method", ["embed", "regenerate", "variations"])
def test_what_is_no_rgb_is_refused(generator, region, method, change, told):
    image = np.zeros_like(region)
    image[0, 0] = 255
    with pytest.raises(ValueError, match=f"must be RGB in 0…255, uint8 of shape .*got {told}"):
        getattr(generator, method)(change(image))


def test_a_picture_of_pillow_is_taken(generator, region):
    np.testing.assert_array_equal(generator.embed(Image.fromarray(region)), generator.embed(region))


def test_a_patch_of_another_size_is_refused(generator, region):
    with pytest.raises(ValueError, match=r"patch must be RGB .* \(64, 64, 3\), got .*\(128, 128"):
        generator.variations(region)


@pytest.mark.parametrize("method", ["generate", "sample_patches"])
def test_embeddings_that_do_not_fit_are_refused(generator, method):
    dim, call = generator.embedding_dim, getattr(generator, method)
    shape = (2, 2, dim) if method == "generate" else (2, dim)
    with pytest.raises(ValueError, match=rf"{dim}\), got .*{dim + 1}\)"):
        call(np.zeros((*shape[:-1], dim + 1), np.float32))
    with pytest.raises(ValueError, match=r"got \(\d+,\)"):
        call(np.zeros(dim, np.float32))
    bad = np.zeros(shape, np.float32)
    bad[-1, ..., 0] = np.nan
    with pytest.raises(ValueError, match=r"must be finite, got [12] embeddings that are not"):
        call(bad)


@pytest.mark.parametrize("size", [64, (64,), (64.5, 64), "64x64", (64, 64, 3), ("64", "64")])
def test_a_size_that_is_none_is_told(generator, size):
    grid = np.zeros((1, 1, generator.embedding_dim), np.float32)
    for draw in (lambda: generator.generate(grid, size=size), lambda: generator.sample_grid(size)):
        with pytest.raises(ValueError, match=r"size must be \(height, width\) in whole px, got "):
            draw()


@pytest.mark.parametrize("labels", [["nuclei"], {"nuclei": "x"}, "nuclei=0.1"])
def test_labels_that_are_no_numbers_by_name_are_told(generator, labels):
    with pytest.raises(ValueError, match=r"labels must be numbers by name, got .*nuclei"):
        generator.sample_grid((64, 64), labels=labels)


@pytest.mark.parametrize("config", [None, tiny.get_config()])
@pytest.mark.parametrize("kind", [str, pathlib.Path])
def test_a_bucket_holds_no_run(kind, config):
    with pytest.raises(schema.ConfigError, match=r"folder that all hosts share.*s3://bucket/run"):
        ssldiff_jax.Generator.load(kind("s3://bucket/run"), config)


def test_a_prior_that_is_trained_on_is_taken_when_it_is_done(workdir, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    shutil.copytree(workdir, folder, symlinks=True)
    values = stored_config.of_run(folder)
    values |= {"stages": "prior", "force": ""}
    train = values["prior"]["train"]
    train["num_steps"] += 2
    train["optimizer"]["learning_rate"] /= 2  # warms up to it again
    fit = loop.fit

    def is_killed(*args, **more):
        fit(*args, **more)  # its checkpoints are those of the new steps
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "fit", is_killed)
    with pytest.raises(KeyboardInterrupt):
        launch.launch(values, folder, table.STAGES)
    model = ssldiff_jax.Generator.load(folder)
    with pytest.raises(stage.WorkdirError, match=r"must be done, got no prior"):
        model.sample_grid((64, 64))
    monkeypatch.setattr(loop, "fit", fit)
    launch.launch(values, folder, table.STAGES)
    grid = ssldiff_jax.Generator.load(folder).sample_grid((64, 64))
    assert grid.shape == (1, 1, model.embedding_dim)


def test_a_run_is_loaded_in_silence(workdir, caplog, capfd):
    with caplog.at_level(logging.WARNING):
        ssldiff_jax.Generator.load(workdir)
    assert not caplog.records
    assert capfd.readouterr() == ("", "")


def test_a_run_says_what_its_prior_understands(generator):
    assert {"nuclei", "stroma north-west"} <= set(generator.labels)
    assert generator.numbers == ()
    assert generator.mpp == 0.5
    grid = generator.sample_grid((64, 128), labels={generator.labels[0]: 0.5})
    assert grid.shape == (1, 2, generator.embedding_dim)


def test_compiled_programs_are_kept(generator):
    assert generator.config.runtime.compilation_cache
    assert jax.config.jax_compilation_cache_dir
