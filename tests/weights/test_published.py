"""Whole checkpoints: written under published names, read back, and refused where they differ."""

import dataclasses

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_configs
from torch_writer import TorchFile

from configs import tcga
from ssldiff_jax.autoencoder import autoencoder, conv
from ssldiff_jax.diffusion import conditioning
from ssldiff_jax.encoders import encoder, known, pixels, vit
from ssldiff_jax.formats import tensors as reader
from ssldiff_jax.generation import generator
from ssldiff_jax.weights import names, published
from ssldiff_jax.weights.tables import latent_diffusion

SMALL_UNET = small_configs.section(
    "denoiser.unet",
    channels=32,
    channel_mult=(1, 2),
    num_res_blocks=1,
    attention_levels=(1,),
    context_dim=16,
)
SMALL = conditioning.DenoiserConfig(SMALL_UNET, embedding_dim=12, region_dim=5)
FIRST_STAGE = autoencoder.AutoencoderConfig(
    "vq",
    3,
    conv.ConvConfig(3, 32, (1, 2, 2), 1, latent_conv="1x1"),
    small_configs.section("autoencoder.model.vq", num_codes=7),
    small_configs.section("autoencoder.model.light"),
)


def drawn(like, seed=0):
    """Random values of the shapes in a tree."""
    leaves, structure = jax.tree.flatten(like)
    rng = np.random.default_rng(seed)
    values = [rng.standard_normal(leaf.shape, np.float32) for leaf in leaves]
    return structure.unflatten(values)


def tensors_of(denoiser, denoiser_params, first_stage, first_stage_params):
    """One checkpoint's tensors under the names of learned representation-guided diffusion."""
    sources = ("patch", "region") if denoiser.region_dim else ("patch",)
    return (
        latent_diffusion.unet_names(denoiser.unet).save(denoiser_params["unet"])
        | latent_diffusion.conditioner_names(sources).save(denoiser_params["conditioner"])
        | latent_diffusion.first_stage_names(first_stage.conv).save(first_stage_params)
    )


def write_checkpoint(path, tensors):
    """As a trainer writes it: weights under state_dict, optimizer states beside them."""
    file = TorchFile()
    state = {name: file.tensor(value) for name, value in tensors.items()}
    moment = file.tensor(np.zeros(3, np.float32))
    training = {"optimizer_states": [{"state": {0: {"exp_avg": moment}}}], "epoch": 3}
    file.write(path, training | {"state_dict": state})


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.fixture(scope="module")
def small():
    return (
        drawn(published.abstract_denoiser(SMALL)),
        drawn(published.abstract_autoencoder(FIRST_STAGE), seed=1),
    )


@pytest.fixture
def tensors(small):
    return tensors_of(SMALL, small[0], FIRST_STAGE, small[1])


def test_a_checkpoint_round_trips(tmp_path, small, tensors):
    path = tmp_path / "lrdm.ckpt"
    write_checkpoint(path, tensors)
    file = published.ModelFile.read(path)
    assert published.conditioner_sizes(file) == published.ConditionerSizes(12, 5)
    same(published.load_denoiser(file, SMALL), small[0])
    same(published.load_autoencoder(file, FIRST_STAGE), small[1])


def test_averaged_weights_are_taken_where_there_are_some(tmp_path, small, tensors):
    prefix = "model.diffusion_model."
    flat = lambda name: "model_ema." + name.removeprefix("model.").replace(".", "")
    averaged = {flat(k): 2 * v for k, v in tensors.items() if k.startswith(prefix)}
    averaged["model_ema.num_updates"] = np.array(7)
    path = tmp_path / "lrdm.ckpt"
    write_checkpoint(path, tensors | averaged)
    found = published.load_denoiser(published.ModelFile.read(path), SMALL)
    same(found["unet"], jax.tree.map(lambda value: 2 * value, small[0]["unet"]))
    same(found["conditioner"], small[0]["conditioner"])


def test_export_and_back(tmp_path, small):
    path = tmp_path / "ours.safetensors"
    table = latent_diffusion.unet_names(SMALL_UNET)
    published.export(path, (table, small[0]["unet"]))
    like = published.abstract_denoiser(SMALL)["unet"]
    same(table.load(reader.read(path), like, str(path)), small[0]["unet"])


NAME = "model.diffusion_model.input_blocks.1.0.in_layers.2.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop(NAME), r"1 missing: input_blocks\.1\.0\.in_layers\.2\.weight"),
        (lambda t: t.update({NAME + "2": t[NAME]}), r"1 unexpected: .*weight2"),
        (lambda t: t.update({NAME: t[NAME][:-1]}), r"1 misshaped: .*in_layers\.2\.weight \(31, 32"),
        (lambda t: t.update({NAME: t[NAME] * np.nan}), r"1 not finite: .*in_layers\.2\.weight"),
    ],
    ids=["missing", "unexpected", "misshaped", "not finite"],
)
def test_every_tensor_that_does_not_fit_is_named(tmp_path, tensors, change, message):
    change(tensors)
    path = tmp_path / "lrdm.ckpt"
    write_checkpoint(path, tensors)
    with pytest.raises(reader.WeightsError, match=r"lrdm\.ckpt does not fit.*" + message):
        published.load_denoiser(published.ModelFile.read(path), SMALL)


def test_a_checkpoint_of_another_architecture_is_refused(tmp_path, tensors):
    path = tmp_path / "lrdm.ckpt"
    write_checkpoint(path, tensors)
    wider = dataclasses.replace(SMALL, unet=dataclasses.replace(SMALL_UNET, channels=64))
    with pytest.raises(reader.WeightsError, match=r"misshaped.* and \d+ more"):
        published.load_denoiser(published.ModelFile.read(path), wider)
    light_config = dataclasses.replace(FIRST_STAGE, kind="light")
    with pytest.raises(reader.WeightsError, match="kind must be kl or vq, got light"):
        published.load_autoencoder(published.ModelFile.read(path), light_config)


# Parameters in millions, as their authors state them.
MILLIONS = {
    "hipt": 21.7,
    "dino-vits16": 21.7,
    "dino-vitb16": 85.8,
    "phikon": 85.8,
    "uni": 303.4,
    "uni2-h": 681.4,
    "dinov2-small": 22.1,
    "dinov2-base": 86.6,
    "dinov2-large": 304.4,
    "dinov2-giant": 1136.5,
}


def shapes_of(name, **sizes):
    architecture = encoder.Architecture.published(name)
    sizes = dataclasses.replace(architecture.vit, **sizes)
    return published.abstract_encoder(dataclasses.replace(architecture, vit=sizes))


@pytest.mark.parametrize("name", MILLIONS)
def test_known_encoders_have_their_size(name):
    count = sum(leaf.size for leaf in jax.tree.leaves(shapes_of(name)))
    assert count / 1e6 == pytest.approx(MILLIONS[name], rel=3e-3)


@pytest.mark.parametrize("name", known.ENCODERS)
def test_every_parameter_of_a_known_encoder_has_one_name(name):
    entry = known.ENCODERS[name]
    table = published.encoder_names(dataclasses.replace(entry.vit, depth=2), entry.names)
    found = []
    for path in flax.traverse_util.flatten_dict(shapes_of(name, depth=2), sep="/"):
        (line,) = [entry for entry in table.entries if entry.matches(path)]
        found += line.names(path)
    assert len(found) == len(set(found))


def test_a_dino_training_state_gives_its_teacher(tmp_path):
    sizes = vit.ViTConfig(32, 8, 16, 1, 2, "class", vit.PLAIN)
    like = names.abstract(vit.ViT(sizes), jnp.zeros((1, 32, 32, 3)))
    params = drawn(like)
    bare = published.encoder_names(sizes, "timm").save(params)
    file, path = TorchFile(), tmp_path / "dino.pth"
    teacher = {f"module.backbone.{k}": file.tensor(v) for k, v in bare.items()}
    teacher["module.head.mlp.0.weight"] = file.tensor(np.zeros((2, 2), np.float32))
    student = {f"module.backbone.{k}": file.tensor(0 * v) for k, v in bare.items()}
    file.write(path, {"student": student, "teacher": teacher, "epoch": 1})
    architecture = encoder.Architecture(sizes, pixels.Pixels(32))
    same(published.load_encoder(published.ModelFile.read(path), encoder.OWN, architecture), params)


def test_a_generator_of_published_weights_draws(tmp_path, small, tensors):
    path = tmp_path / "lrdm.ckpt"
    write_checkpoint(path, tensors)
    config = tcga.get_config()
    config.data.crops.patch_px = config.encoder.model.vit.image_px = 32
    config.judge.model.vit.image_px = 32
    sizes = config.autoencoder.model.conv
    sizes.channels, sizes.channel_mult, sizes.num_res_blocks = 32, (1, 2, 2), 1
    config.autoencoder.model.vq.num_codes = 7
    denoiser = config.denoiser.unet
    denoiser.channels, denoiser.channel_mult, denoiser.num_res_blocks = 32, (1, 2), 1
    denoiser.attention_levels, denoiser.context_dim = (1,), 16
    config.sample.solver.name, config.sample.solver.num_solver_steps = "plms", 2
    config.sample.windows.max_offset, config.sample.window_batch = 2, 3
    config.sample.decode.tile, config.sample.decode.overlap = 8, 2

    found = generator.Generator.load(path, config)
    assert found.networks.autoencoder.scaling == autoencoder.LatentScaling((1.0,) * 3, (0.0,) * 3)
    ours = {"latent_scale": np.full(3, 2, np.float32), "latent_shift": np.ones(3, np.float32)}
    write_checkpoint(tmp_path / "export.ckpt", tensors | ours)
    exported = generator.Generator.load(tmp_path / "export.ckpt", config).networks
    assert exported.autoencoder.scaling == autoencoder.LatentScaling((2.0,) * 3, (1.0,) * 3)
    assert found.embedding_dim == 12
    grid = np.random.default_rng(0).normal(size=(1, 2, 12)).astype(np.float32)
    image = found.generate(grid, size=(32, 70)).image
    assert image.shape == (32, 70, 3)
    assert image.std() > 0
    with pytest.raises(ValueError, match=r"config\.encoder\.weights must name"):
        found.embed(image)
    with pytest.raises(ValueError, match="published weights need a config"):
        generator.Generator.load(path)


@pytest.mark.slow
def test_a_full_size_checkpoint_round_trips(tmp_path):
    """400.92 M parameters in float32."""
    config = conditioning.DenoiserConfig(
        small_configs.section("denoiser.unet"), 384, region_dim=768
    )
    first_stage = dataclasses.replace(
        FIRST_STAGE,
        conv=small_configs.section("autoencoder.model.conv"),
        vq=small_configs.section("autoencoder.model.vq", num_codes=8192),
    )
    like = published.abstract_denoiser(config)
    assert sum(leaf.size for leaf in jax.tree.leaves(like["unet"])) == 400_920_579
    params = drawn(like), drawn(published.abstract_autoencoder(first_stage), seed=1)
    path = tmp_path / "brca.ckpt"
    write_checkpoint(path, tensors_of(config, params[0], first_stage, params[1]))

    file = published.ModelFile.read(path)
    found = published.load_denoiser(file, config), published.load_autoencoder(file, first_stage)
    same(found, params)
