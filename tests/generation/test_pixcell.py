"""PixCell's folders, small and with recorded random weights: images of any size, led by embeddings
and by a map, from Python and by a command."""

import dataclasses
import json
import logging

import h5py
import jax
import numpy as np
import pixcell_folders
import pytest
from PIL import Image

from ssldiff_jax.core import schema
from ssldiff_jax.encoders import encoder, vit
from ssldiff_jax.formats import tensors as reader
from ssldiff_jax.generation import generator, models
from ssldiff_jax.runs import launch, stage
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.stages import table
from ssldiff_jax.weights import names

DIM = 48  # of the recorded models' embeddings


@pytest.fixture(scope="module")
def folders(golden, tmp_path_factory):
    """Folders of both models as they are published, and their configs."""
    stage_ = golden("diffusers_autoencoder_kl_sd3")
    made = {}
    for model in ("256", "1024"):
        recorded = golden(f"pixcell_dit_{model}")
        folder = tmp_path_factory.mktemp("weights") / f"PixCell-{model}"
        pixcell_folders.write(folder, recorded, stage_, control=model == "256")
        made[model] = folder, pixcell_folders.config(recorded, stage_)
    return made


@pytest.fixture(scope="module")
def large(folders):
    """The model of 16 tokens."""
    return generator.Generator.load(*folders["1024"])


@pytest.fixture(scope="module")
def controlled(folders):
    """The model of one token with its ControlNet."""
    folder, values = folders["256"]
    values = values.copy_and_resolve_references()
    values.denoiser.control.weights = str(folder)
    return generator.Generator.load(folder, values)


def grid_of(*size, seed=0):
    return np.random.default_rng(seed).normal(size=(*size, DIM)).astype(np.float32)


def tissue(height, width):
    return np.random.default_rng(3).integers(0, 255, (height, width, 3), np.uint8)


def test_a_folder_is_a_generator_and_its_code_is_not_run(folders, tmp_path, caplog):
    folder, values = folders["256"]
    folder = pixcell_folders.copied(folder, tmp_path / "PixCell-256")
    mark = tmp_path / "mark"
    code = folder / "transformer" / "pixcell_transformer_2d.py"
    code.write_text(f"open({str(mark)!r}, 'w')")
    model = generator.Generator.load(folder, values)
    assert caplog.text.count("has code that is not run: transformer/pixcell_transf") == 1
    assert not mark.exists()
    assert (model.embedding_dim, model.patch_px) == (DIM, 128)
    assert model.trained.autoencoder.scaling.latent_scale == (1.5305,) * 16
    assert model.trained.autoencoder.scaling.latent_shift == (0.0609,) * 16
    with pytest.raises(ValueError, match=r"\(rows, columns, 48\), got \(1, 2, 1024\)"):
        model.generate(np.zeros((1, 2, 1024), np.float32))
    with pytest.raises(reader.WeightsError, match=r"config\.encoder\.weights must name .*got none"):
        model.embed(tissue(128, 128))


def test_windows_of_16_tokens_take_the_cells_that_they_stand_on(large):
    """Cells of 64 px, windows of 4 × 4 of them: at every step the grid stands on cells, and no
    embedding is one between others."""
    assert (large.patch_px, large.embedding_dim) == (64, DIM)
    grid = grid_of(6, 5)
    plan = large.plan_from_grid(grid)
    assert plan.size == (384, 320)
    # 32 latents a window, 8 a cell.
    places = set()
    for step in plan.windows.steps:
        corners = plan.windows.places(step.corners())
        assert not (corners % 8).any()
        places |= {tuple(corner) for corner in corners % 32}
        for corner, condition in zip(corners, plan.condition(corners), strict=True):
            # The outermost cells go on beyond the border.
            rows, cols = (
                np.clip(first // 8 + np.arange(4), 0, count - 1)
                for first, count in zip(corner, grid.shape[:2], strict=True)
            )
            expected = grid[rows][:, cols].reshape(-1)
            np.testing.assert_allclose(condition, expected, atol=1e-5)
    assert len(places) > 1, "the grid did not move"
    with pytest.raises(ValueError, match=r"\(rows, columns, 48\), got \(2, 2, 768\)"):
        large.plan_from_grid(np.zeros((2, 2, 16 * DIM), np.float32))


def test_between_cells_tokens_are_between_embeddings(large):
    """Over another size cells are of another size, and windows stand between them."""
    grid = grid_of(2, 2)
    plan = large.plan_from_grid(grid, size=(256, 256))
    (condition,) = plan.condition(np.array([[0, 0]])).reshape(1, 4, 4, DIM)
    np.testing.assert_allclose(condition[0, 0], grid[0, 0], atol=1e-5)
    np.testing.assert_allclose(condition[3, 3], grid[1, 1], atol=1e-5)
    # Tokens are 64 px apart, cells 128: a token is a quarter of the way from one to the other.
    between = condition[1, 0]
    along = np.linalg.norm(between - grid[0, 0]), np.linalg.norm(between - grid[1, 0])
    assert along[0] < along[1] < np.linalg.norm(grid[0, 0] - grid[1, 0])


def with_encoder(model, dim=DIM, px=32):
    """A generator with an encoder of `dim` numbers for patches of any size."""
    sizes = vit.ViTConfig(px, 16, dim, 1, 2, "class", vit.PLAIN)
    image = np.zeros((1, px, px, 3), np.float32)
    source = np.random.default_rng(1)
    params = jax.tree.map(
        lambda leaf: source.normal(size=leaf.shape).astype(np.float32),
        names.abstract(vit.ViT(sizes), image),
    )
    own = encoder.Architecture.named(encoder.OWN, sizes)
    embeds = encoder.Encoder(dataclasses.replace(own, takes="any"), params)
    trained = dataclasses.replace(model.trained, encoder=embeds)
    return generator.Generator(model.config, trained, model.mesh)


def test_a_reference_is_embedded_square_by_square(large):
    model, image = with_encoder(large), tissue(320, 256)
    grid = model.embed(image)
    assert grid.shape == (5, 4, DIM)
    alone = model.encoder(image[None, 64:128, 192:256])[0]
    np.testing.assert_allclose(grid[1, 3], alone, atol=1e-5)
    # Dense: at the squares of a window that stands anywhere.
    sample = dataclasses.replace(model.config.sample, conditioning="dense")
    plan = model.with_sample(sample).planner.from_image(image)
    (condition,) = plan.condition(np.array([[3, 0]])).reshape(1, 4, 4, DIM)
    for row in range(4):
        square = image[24 + 64 * row :][:64, 64:128]
        np.testing.assert_allclose(condition[row, 1], model.encoder(square[None])[0], atol=1e-4)
    # From the grid, as the config says.
    plan = model.planner.from_image(image)
    np.testing.assert_allclose(
        plan.condition(np.array([[0, 0]]))[0], grid[:4].reshape(-1), atol=1e-4
    )


def test_a_larger_image_takes_more_windows_and_no_other_program(large):
    image = large.generate(grid_of(4, 5), seed=1)
    assert image.image.shape == (256, 320, 3)
    assert image.image.std() > 1
    np.testing.assert_array_equal(large.generate(grid_of(4, 5), seed=1).image, image.image)
    assert np.any(large.generate(grid_of(4, 5, seed=2), seed=1).image != image.image)
    networks = large.networks.sampler.network.of_kind
    before = {kind: program._cache_size() for kind, program in networks.items()}
    assert large.generate(grid_of(3, 9)).image.shape == (192, 576, 3)
    assert {kind: program._cache_size() for kind, program in networks.items()} == before


def test_a_map_leads_an_image_of_any_size(controlled):
    grid, size = grid_of(1, 2), (128, 200)
    shown = np.zeros((*size, 3), np.uint8)
    shown[40:80, 30:90] = 255
    image = controlled.generate(grid, size=size, control=shown)
    assert image.image.shape == (*size, 3)
    other = controlled.generate(grid, size=size, control=np.zeros_like(shown))
    assert np.abs(image.image.astype(int) - other.image).mean() > 1
    with pytest.raises(ValueError, match=r"with a ControlNet must be shown a map"):
        controlled.generate(grid)
    with pytest.raises(ValueError, match=r"control must be RGB .*\(128, 256, 3\), got .*\(128, 2"):
        controlled.generate(grid, control=shown)


def test_a_window_is_shown_the_map_under_it(controlled):
    """One window on a canvas of one window: the network's own call, guidance and all."""
    networks, params = controlled.networks, controlled.weights.denoiser
    plan = controlled.planner.with_control(
        controlled.plan_from_grid(grid_of(1, 1)), tissue(128, 128)
    )
    latents = networks.encode_image(tissue(128, 128), (16, 16))
    condition = plan.condition(np.array([[0, 0]]))
    np.testing.assert_array_equal(condition[0, DIM:], latents.ravel())
    x_t = jax.random.normal(jax.random.key(5), (1, 16, 16, 16))
    t = np.array([900])
    model = controlled.trained.denoiser
    predict = lambda y: model.apply(
        {"params": params}, x_t, t, y, None, jax.numpy.asarray(latents[None])
    )
    cond, uncond = predict(condition[:, :DIM]), predict(np.zeros((1, DIM), np.float32))
    process, scale = networks.config.denoiser.process, networks.config.sample.guidance.scale
    expected = process.to_x0(uncond + scale * (cond - uncond), x_t, t)
    found = networks.x0_hat(params, x_t, t, condition)
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


def test_a_map_without_a_controlnet_is_refused(large):
    with pytest.raises(ValueError, match=r"must come with a ControlNet, config\.denoiser\.control"):
        large.generate(grid_of(4, 4), control=tissue(256, 256))


def test_an_encoder_of_other_embeddings_is_refused(folders, monkeypatch, large):
    folder, values = folders["256"]
    values = values.copy_and_resolve_references()
    values.encoder.name, values.encoder.weights = "uni", "uni.bin"
    other = with_encoder(large, dim=32).encoder
    monkeypatch.setattr(models, "encoder_of", lambda path, section: other)
    with pytest.raises(reader.WeightsError, match=r"an encoder of 48 numbers, got uni of 32"):
        generator.Generator.load(folder, values)


def test_a_lora_is_merged_and_one_of_another_base_refused(folders, tmp_path):
    from safetensors.numpy import save_file

    folder, values = folders["256"]
    values = values.copy_and_resolve_references()
    layer = "transformer.transformer_blocks.1.attn2.to_v"
    path, source = tmp_path / "lora.safetensors", np.random.default_rng(0)
    down, up = (source.normal(size=s).astype(np.float32) for s in ((2, 72), (72, 2)))
    save_file({f"{layer}.lora_A.weight": down, f"{layer}.lora_B.weight": up}, path)
    plain = generator.Generator.load(folder, values).trained.params
    values.denoiser.lora.weights, values.denoiser.lora.scale = str(path), 0.5
    merged = generator.Generator.load(folder, values).trained.params
    kernel = lambda params: params["dit"]["blocks"]["stacked"]["cross"]["kv"]["kernel"]
    change = kernel(merged) - kernel(plain)
    # Keys, then values; of the second block alone.
    np.testing.assert_allclose(change[1, :, 72:], 0.5 * (up @ down).T, atol=1e-5)
    assert not change[[0, 2]].any()
    assert not change[1, :, :72].any()
    save_file({"text_model.q.lora_A.weight": down, "text_model.q.lora_B.weight": up}, path)
    with pytest.raises(reader.WeightsError, match=r"must be a LoRA of .*first text_model\.q"):
        generator.Generator.load(folder, values)


def settings(folder, values, reference, **changes):
    values = values.copy_and_resolve_references()
    values.stages, values.generate.reference = "generate", str(reference)
    values.denoiser.weights = values.autoencoder.weights = str(folder)
    values.sample.output.formats = ("png",)
    values.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
    return values.to_dict()


def run(values, workdir):
    launch.launch(values, workdir, table.STAGES)


def test_a_command_generates_from_files_alone(folders, tmp_path, controlled):
    """Embeddings in an .h5 file as tools for slides write them, a map beside them."""
    folder, values = folders["256"]
    grid = grid_of(2, 2)
    corners = np.array([[0, 0], [256, 0], [0, 256], [256, 256]])  # (x, y) at 40×
    with h5py.File(tmp_path / "slide.h5", "w") as file:
        file["features"] = grid.reshape(4, DIM)
        file["coords"] = corners + 512
        file["coords"].attrs["patch_size_level0"] = 256
    shown = np.zeros((256, 256), np.uint8)
    shown[64:128, 64:192] = 255
    Image.fromarray(shown).save(tmp_path / "map.png")
    own = settings(
        folder, values, tmp_path / "slide.h5",
        denoiser__control__weights=str(folder), generate__control=str(tmp_path / "map.png"),
    )  # fmt: skip
    run(own, tmp_path / "run")
    (made,) = (tmp_path / "run" / "generate").iterdir()
    image = np.asarray(Image.open(made / "image.png"))
    assert made.name == "slide-map-seed0"
    control = np.repeat(shown[..., None], 3, axis=2)
    np.testing.assert_array_equal(image, controlled.generate(grid, control=control).image)
    # Done: the same request makes nothing again; another scale is another request.
    before = (made / "image.png").stat().st_mtime_ns
    run(own, tmp_path / "run")
    assert (made / "image.png").stat().st_mtime_ns == before
    inputs = json.loads((made / "stage.json").read_text())["config"]["inputs"]
    assert {"reference", "control", "denoiser.weights", "autoencoder.weights"} <= inputs.keys()


def test_a_dry_run_says_the_calls(folders, tmp_path, caplog):
    folder, values = folders["1024"]
    np.save(tmp_path / "grid.npy", grid_of(8, 8))
    own = settings(folder, values, tmp_path / "grid.npy", sample__dry_run=True)
    caplog.set_level(logging.INFO, "ssldiff_jax")
    run(own, tmp_path / "run")
    # 2 × 2 windows and one beyond, all guided and both of the steps among the last three, whose
    # windows overlap by a cell: ⌈12 cells / 3⌉ = 4 × 4, in batches of 4.
    assert "32 windows in 2 steps" in caplog.text
    assert "network calls in 8 chunks" in caplog.text
    assert not (tmp_path / "run" / "generate").exists()


def test_a_command_without_anything_to_generate_from(folders, tmp_path):
    folder, values = folders["1024"]
    with pytest.raises(stage.WorkdirError, match=r"config\.generate\.reference must name what"):
        run(settings(folder, values, ""), tmp_path / "run")
    own = settings(folder, values, "", denoiser__weights=str(tmp_path / "gone"))
    with pytest.raises(ValueError, match=r"config\.denoiser\.weights must be a file or folder"):
        run(own, tmp_path / "other")


def test_4096_px_of_the_large_model_take_a_quarter_of_its_own_calls():
    """1 960 by PixCell's own tool: 7 × 7 windows, 20 steps, all guided."""
    from configs import pixcell
    from ssldiff_jax.runs.workdir import folders as folders_lib
    from ssldiff_jax.stages.tools.plan import devices, one_image
    from ssldiff_jax.stages.tools.plan import facts as facts_lib

    values = pixcell.get_config("1024")
    values.denoiser.weights = values.autoencoder.weights = "weights"
    values.generate.size = (4096, 4096)
    # Calls do not depend on how large the network is.
    shape = values.denoiser.dit.shape
    shape.width, shape.depth, shape.num_heads = 16, 1, 2
    values.autoencoder.model.conv.channels = 32
    config = schema.build(run_config.RunConfig, values.to_dict())
    folders_ = folders_lib.Folders.of(config, None)
    facts = facts_lib.Facts(config, folders_, devices.Devices.of(config), None, "no slides")
    model = facts.networks.generator
    plan = model.planner.plan_windows((4096, 4096), of_grid=True)
    assert plan.window == 128
    assert all(not (step.rows % 32).any() for step in plan.steps)
    calls = model.networks.sampler.unet_forwards(plan)
    assert calls <= 500
    row = one_image.generate(facts)
    assert row.counts["network calls"].value == calls == 475
    # Windows that are really there: the last of a step fill up a batch.
    assert plan.num_windows == 7 * 25 + 3 * 49
