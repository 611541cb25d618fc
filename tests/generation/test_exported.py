"""Models that left their run: what the files say, and that they generate the same pixels."""

import dataclasses
import json
import re
import shutil

import jax
import numpy as np
import pytest
import random_models
import safetensors.numpy

import ssldiff_jax
from configs import tiny
from ssldiff_jax.autoencoder import autoencoder
from ssldiff_jax.core import digests, schema
from ssldiff_jax.diffusion import conditioning
from ssldiff_jax.encoders import encoder, vit
from ssldiff_jax.formats import tensors as reader
from ssldiff_jax.generation import exported, models
from ssldiff_jax.report import figures
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.runs.workdir import folders
from ssldiff_jax.stages.tools import export
from ssldiff_jax.weights import names, published


@pytest.fixture(scope="module")
def folder(command, workdir):
    done = command(workdir, "--config.stages=export", "--config.export.licence=CC0-1.0")
    assert done.returncode == 0, done.stderr[-3000:]
    return workdir / "export"


@pytest.fixture(scope="module")
def loaded(folder):
    return ssldiff_jax.Generator.load(folder)


def test_an_export_generates_the_runs_pixels(generator, loaded, region):
    np.testing.assert_array_equal(loaded.embed(region), generator.embed(region))
    mine, theirs = (np.asarray(g.regenerate(region, seed=3)) for g in (generator, loaded))
    np.testing.assert_array_equal(mine, theirs)
    assert mine.std() > 0


def test_an_export_knows_what_the_prior_knows(generator, loaded):
    assert loaded.labels == generator.labels
    asked = {generator.labels[0]: 0.7}
    grids = [g.sample_grid((192, 128), labels=asked, seed=2) for g in (generator, loaded)]
    np.testing.assert_array_equal(*grids)


def test_the_denoisers_file_alone_generates_from_grids(folder, loaded, tmp_path, region):
    alone = tmp_path / "renamed.safetensors"
    alone.write_bytes((folder / exported.DENOISER).read_bytes())
    found = ssldiff_jax.Generator.load(alone)
    grid = loaded.embed(region)
    np.testing.assert_array_equal(
        np.asarray(found.generate(grid)), np.asarray(loaded.generate(grid))
    )
    with pytest.raises(reader.WeightsError, match="to embed images"):
        found.embed(region)


@pytest.mark.parametrize("name", [exported.DENOISER, exported.ENCODER, exported.PRIOR])
def test_a_file_says_what_it_is_and_anyone_may_read_it(folder, workdir, name):
    card = exported.Card.read(folder / name)
    assert (card.mpp, card.licence, card.encoder["licence"]) == (0.5, "CC0-1.0", "CC0-1.0")
    noted = json.loads((workdir / "encoder" / "encoder.json").read_text())
    assert card.encoder["digest"] == noted["hash"]
    assert card.versions["jax"]
    assert str(workdir) not in json.dumps(dataclasses.asdict(card))
    assert (folder / name).stat().st_mode & 0o777 == 0o644


def test_the_card_has_the_runs_own_figures(folder, workdir):
    collected = json.loads((workdir / "report" / "figures.json").read_text())
    page = (folder / "README.md").read_text()
    shown = re.findall(r"^\| (.*) \| (?:.*) \| (?:.*) \| (?:.*) \|$", page, re.M)[1:]
    # What tools and the report took since is of the machine and not of the models.
    costs = {"time of all stages", "time from clone to report, installation included",
             "peak memory"}  # fmt: skip
    names = [figure["name"] for figure in collected["figures"]]
    assert [name for name in shown if name not in costs] == [n for n in names if n not in costs]
    for line in figures.table(collected).splitlines():
        assert line in page or line.split(" |")[0].removeprefix("| ") in costs
    about = json.loads((workdir / "evaluate" / "results.json").read_text())
    fraction = about["memorisation"]
    assert json.dumps(round(fraction["fraction"], 6)) in page.partition("\n---\n")[0]
    inputs = json.loads((workdir / "patches" / "stage.json").read_text())["config"]["inputs"]
    data = json.loads((folder / "config.json").read_text())["data"]
    assert data["digest"] == digests.of_values(inputs)
    facts = json.loads((workdir / "patches" / "done.json").read_text())["facts"]
    assert (data["records"], data["sources"]) == (facts["records"], 1)
    assert str(workdir) not in page


def test_figures_of_models_that_changed_since_are_left_out(workdir, tmp_path, caplog):
    run = tmp_path / "run"
    shutil.copytree(workdir, run, ignore=shutil.ignore_patterns("checkpoints", "archive"))
    found, why_not = export.measured(folders.Folders(run))
    assert found["figures"]
    assert why_not == ""
    path = run / "denoiser" / "done.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"digest": "another"}))
    assert export.measured(folders.Folders(run)) == (
        None, "what the step evaluate measured was made again since"
    )  # fmt: skip
    assert "--config.stages=sample,evaluate" in caplog.text
    (run / "evaluate" / "done.json").unlink()
    assert export.measured(folders.Folders(run)) == (None, "the step evaluate was not run")


def test_an_encoder_of_another_run_is_refused(folder, tmp_path):
    for name in (exported.DENOISER, exported.ENCODER):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    with safetensors.safe_open(folder / exported.ENCODER, "np") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        head = file.metadata()
    tensors["norm.bias"] = tensors["norm.bias"] + 1
    safetensors.numpy.save_file(tensors, tmp_path / exported.ENCODER, metadata=head)
    with pytest.raises(reader.WeightsError, match=r"must be the encoder \w{12} .*, got \w{12}"):
        ssldiff_jax.Generator.load(tmp_path)


@pytest.mark.parametrize("found", [exported.FORMAT - 1, exported.FORMAT + 1])
def test_an_export_of_another_format_is_refused(folder, tmp_path, found):
    path = tmp_path / "other.safetensors"
    card = json.loads(reader.metadata(folder / exported.DENOISER)["ssldiff_jax"])
    head = {"ssldiff_jax": json.dumps(card | {"format": found})}
    safetensors.numpy.save_file({"x": np.zeros(1)}, path, metadata=head)
    with pytest.raises(reader.WeightsError, match=f"format 2, got {found}; export its run again"):
        ssldiff_jax.Generator.load(path)


def test_what_is_no_export_is_refused(tmp_path):
    path = tmp_path / "other.safetensors"
    safetensors.numpy.save_file({"x": np.zeros(1)}, path)
    with pytest.raises(ValueError, match="published weights need a config"):
        ssldiff_jax.Generator.load(path)


def drawn(like):
    """Random values of the shapes in a tree."""
    generator = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: generator.standard_normal(leaf.shape, np.float32), like)


def small_conv(config):
    sizes = config.autoencoder.model.conv
    sizes.channels, sizes.channel_mult, sizes.num_res_blocks = 32, (1, 1, 1), 1
    config.autoencoder.model.vq.num_codes = 5


def kl(config):
    small_conv(config)
    config.autoencoder.model.kind = "kl"
    config.denoiser.unet.latent_channels = config.autoencoder.model.conv.latent_channels


def vq(config):
    kl(config)
    config.autoencoder.model.kind = "vq"


def cells(config):
    config.data.crops.condition_on = config.sample.conditioning = "cells"


def region(config):
    config.denoiser.region_dim = 5


def attention(config):
    config.denoiser.unet.attention_levels = (1,)
    config.denoiser.embedding_length = "root_dim"


def tokens(config):
    config.embeddings.tokens_per_side = 2


def tokens_of_a_class(config):
    tokens(config)
    config.encoder.model.vit.pool = "class"
    config.data.crops.condition_on = config.sample.conditioning = "cells"


def transformer(config):
    config.denoiser.network = "dit"


def transformer_of_cells(config):
    transformer(config)
    tokens(config)
    config.data.crops.condition_on = config.sample.conditioning = "cells"
    config.denoiser.dit.conditioning = "cross_attention"
    config.denoiser.dit.mlp = "swiglu"


def elsewhere(config):
    config.embeddings.source = "/data/somebody/features"
    config.data.crops.context_px = 0
    config.data.records.record_px = config.data.crops.patch_px
    config.data.crops.num_crops, config.data.crops.dihedral = 0, False
    config.sample.conditioning = "interpolated"
    config.autoencoder.loss.perceptual_weight = 0.0
    config.encoder.model.shift_px = config.judge.model.shift_px = 0


def with_published_encoder(config):
    config.encoder.name, config.encoder.train.num_steps = "dino-vits16", 0
    config.encoder.weights = "/weights/dino.pth"


KINDS = [
    kl, vq, cells, region, attention, tokens, tokens_of_a_class, transformer, transformer_of_cells,
    elsewhere, with_published_encoder,
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_kind_of_model_comes_back(kind, tmp_path):
    values = tiny.get_config()
    kind(values)
    config = schema.build(run_config.RunConfig, values.to_dict())
    dim, model = 384 if kind is with_published_encoder else 12, config.autoencoder.model
    sizes = config.denoiser_sizes(dim)
    count = model.chosen.latent_channels
    scaling = autoencoder.LatentScaling((0.5,) * count, (0.25,) * count)
    embeds = None
    if kind is not elsewhere:
        architecture = config.encoder.architecture
        image = np.zeros((1, architecture.vit.image_px, architecture.vit.image_px, 3), np.float32)
        params = drawn(names.abstract(vit.ViT(architecture.vit), image))
        width = architecture.vit.width
        of_tokens = np.arange(width)[::-1] if architecture.vit.pool == "class" else None
        white = np.random.default_rng(1).normal(size=(width, width)).astype(np.float32)
        embeds = encoder.Encoder(
            architecture, params, np.arange(width), token_origin=of_tokens,
            whitening=white if architecture.vit.pool == "mean" else None,
        )  # fmt: skip
    trained = models.Models(
        embeds,
        autoencoder.TrainedAutoencoder(
            model, drawn(published.abstract_autoencoder(model)), scaling
        ),
        conditioning.Denoiser(sizes),
        drawn(published.abstract_denoiser(sizes)),
    )

    written = exported.write(tmp_path, trained, exported.Card.of(config, trained, {}))
    found_config, found = exported.load(written[0])
    same = lambda a, b: jax.tree.map(np.testing.assert_array_equal, a, b)
    same(found.params, trained.params)
    same(found.autoencoder.params, trained.autoencoder.params)
    assert found.denoiser.config == sizes
    assert found.autoencoder.scaling == scaling
    assert (found_config.denoiser, found_config.sample) == (config.denoiser, config.sample)
    assert found_config.mesh == config.mesh
    if kind in (elsewhere, with_published_encoder):
        assert found.encoder is None
        assert [path.name for path in written] == [exported.DENOISER]
    else:
        same(found.encoder.params, trained.encoder.params)
        same(found.encoder.token_origin, trained.encoder.token_origin)
        same(found.encoder.whitening, trained.encoder.whitening)
    head = reader.metadata(written[0])["ssldiff_jax"]
    assert not re.search(r"/data|/weights", head)
    assert ("dino.pth" in head) == (kind is with_published_encoder)


def test_an_encoder_whose_tokens_are_measured_from_elsewhere_is_refused(tmp_path):
    model = random_models.make(tokens_per_side=2, pool="class")
    trained = model.trained
    written = exported.write(tmp_path, trained, exported.Card.of(model.config, trained, {}))
    dim = trained.encoder.dim
    moved = trained.encoder.measured_from(trained.encoder.origin, tokens=np.ones(dim))
    table = published.encoder_names(trained.encoder.architecture.vit, "timm")
    head = reader.metadata(tmp_path / exported.ENCODER)
    published.export(
        tmp_path / exported.ENCODER, (table, moved.params), metadata=head,
        origin=moved.origin, token_origin=moved.token_origin,
    )  # fmt: skip
    with pytest.raises(reader.WeightsError, match=r"\w{12} that made the tokens, got \w{12}"):
        exported.load(written[0])
