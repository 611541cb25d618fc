"""Encoder and judge of a run on four bands: each is trained, centred and used on its own three."""

import numpy as np
import pytest
import rasterio

from configs import demo, tiny
from ssldiff_jax.core import bands as bands_lib
from ssldiff_jax.core import schema
from ssldiff_jax.data import loader, store
from ssldiff_jax.encoders import encoder
from ssldiff_jax.runs import artifacts, launch, level_crops
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.runs.workdir import folders as folders_lib
from ssldiff_jax.stages import encoder as encoder_stage
from ssldiff_jax.stages import table

pytestmark = pytest.mark.e2e

NAMES = ("red", "green", "blue", "nir")
SEES = {"encoder": (3, 0, 1), "judge": (0, 1, 2)}


def scene(path):
    generator = np.random.default_rng(0)
    coarse = generator.integers(0, 250, (4, 14, 12)).astype(np.uint8)
    pixels = coarse.repeat(32, axis=1).repeat(32, axis=2)
    profile = {"driver": "GTiff", "height": 448, "width": 384, "count": 4, "dtype": "uint8"}
    transform = rasterio.Affine(1, 0, 500000, 0, -1, 4000000)
    with rasterio.open(path, "w", crs="EPSG:32613", transform=transform, **profile) as file:
        file.write(pixels)
        file.descriptions = NAMES
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(run, what loaders of encoder and judge were asked to see)."""
    folder, seen = tmp_path_factory.mktemp("bands"), []
    c = tiny.shrink(demo.get_config())
    c.stages = "patches,encoder,judge,embeddings"
    c.data.slides, c.data.holdout.by = str(scene(folder / "scene.tif")), "area"
    c.data.patch_mpp, c.data.engine.processes = 1e6, 1
    c.data.records.min_tissue, c.data.crops.num_crops = 0.0, 6
    c.data.regions.count, c.data.holdout.fraction = 1, 0.4
    c.data.reading.multiband.names, c.autoencoder.model.bands = NAMES, 4
    c.data.reading.multiband.encoded = ("nir", "red", "green")
    patch_batches = loader.patch_batches

    def spied(*records, see, **options):
        batches = patch_batches(*records, see=see, **options)
        first = next(iter(batches))["pixels"]
        seen.append((see, first.shape[-1], first.dtype))
        return batches

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(encoder_stage.loader, "patch_batches", spied)
        launch.launch(c.to_dict(), folder / "run", table.STAGES)
    made = schema.build(run_config.RunConfig, c.to_dict())
    return artifacts.Artifacts(made, folders_lib.Folders.of(made, folder / "run")), seen


def test_each_is_trained_on_what_it_sees(trained):
    _, seen = trained
    kind = bands_lib.Kind(4, np.dtype(np.uint8), 1)
    assert seen == [(bands_lib.View(v, kind), 3, np.dtype(np.uint8)) for v in SEES.values()]


@pytest.mark.parametrize("name", ["encoder", "judge"])
def test_its_origin_is_the_mean_of_what_it_sees(trained, name):
    run, _ = trained
    model = run.encoder(name)
    (source,) = level_crops.training_records(run)
    px = run.config.data.crops.patch_px
    patches = artifacts.patches_at(source, len(source), px)[..., list(SEES[name])]
    plain = encoder.Encoder(model.architecture, model.params)
    np.testing.assert_allclose(plain(patches).mean(axis=0), model.origin, atol=1e-5)


def test_embeddings_of_crops_are_those_of_their_three_bands(trained):
    run, _ = trained
    model, reader = run.encoder(), level_crops.reader(run)
    patches = reader.patches(range(len(reader)))
    assert patches.shape[-1] == 4
    plain = encoder.Encoder(
        model.architecture, model.params, model.origin, whitening=model.whitening
    )
    expected = plain(np.ascontiguousarray(patches[..., list(SEES["encoder"])]))
    stored = store.Store(run.folders.of_stage("embeddings")).batch(list(range(len(reader))))
    values = np.asarray(stored["embedding"], np.float32)
    np.testing.assert_allclose(values, expected, atol=2e-2, rtol=2e-2)
    # Other bands would be another embedding.
    others = plain(np.ascontiguousarray(patches[..., :3]))
    assert np.abs(others - expected).max() > 10 * np.abs(values - expected).max()
