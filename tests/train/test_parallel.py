"""One device, eight devices in four ways, and two processes give the same numbers.

This file is also the script those devices and processes run.
"""

import os
import pathlib
import socket
import subprocess
import sys
import types

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import patience
import pytest
import small_configs
from etils import epath

from ssldiff_jax.autoencoder import autoencoder, conv, discriminator
from ssldiff_jax.autoencoder import loss as autoencoder_loss
from ssldiff_jax.core import rng, tasks
from ssldiff_jax.diffusion import loss as loss_lib
from ssldiff_jax.diffusion import process, schedule
from ssldiff_jax.encoders import augment, dino, infonce, vit
from ssldiff_jax.train import checkpoint, flat, hosts, named, optimizer, parallel
from ssldiff_jax.train import mesh as mesh_lib
from ssldiff_jax.train import step as step_lib

ROOT = pathlib.Path(__file__).parents[2]
RULES = ("kernel$ = -1:fsdp",)
BATCH, DIM, NUM_STEPS = 16, 6, 20
OPTIMIZER = optimizer.OptimizerConfig("adamw", 0.01, 1, "constant", 0.1, (), 0.99, 1.0, 0.9)
WAYS = ("pmap", "data8", "data4_fsdp2", "fsdp8", "model2", "parts", "arrays", "processes")


class TinyDenoiser(nn.Module):
    """The call of a denoiser, in three layers."""

    config = types.SimpleNamespace(
        condition_dim=DIM,
        stored_dim=DIM,
        condition_dtype=np.dtype(np.float32),
        num_levels=0,
        null=jnp.zeros_like,
    )

    @nn.compact
    def __call__(self, x_t, t, embedding):
        h = nn.Conv(8, (3, 3), name="in")(x_t)
        context = jnp.concatenate([embedding, jnp.cos(0.01 * t[:, None])], axis=-1)
        h = nn.gelu(h + nn.Dense(8, name="context")(context)[:, None, None])
        return nn.Conv(x_t.shape[-1], (3, 3), name="out")(h)


def make_batch(step):
    generator = np.random.default_rng(step)
    return {
        "moments": generator.normal(size=(BATCH, 8, 8, 4)).astype(np.float32),
        "embedding": generator.normal(size=(BATCH, DIM)).astype(np.float32),
        "index": np.arange(BATCH * step, BATCH * (step + 1), dtype=np.int32),
    }


def denoising():
    """The task that all ways are tried with."""
    return loss_lib.DenoisingTask(
        TinyDenoiser(),
        autoencoder.LatentScaling((1.0, 2.0), (0.0, 0.5)),
        process.Process(schedule.Schedule("cosine", 1000, 0.0015, 0.0195), "v"),
        cond_drop_rate=0.5,
        min_snr_gamma=5.0,
        moments_shape=(8, 8, 4),
    )


def make_images(step):
    source = np.random.default_rng(step)
    image_uint8 = source.integers(0, 256, (BATCH, 16, 16, 3), np.uint8)
    return {"pixels": image_uint8, "index": make_batch(step)["index"]}


def far_tasks():
    """Those whose losses look beyond the examples of one device."""
    model = vit.ViT(
        small_configs.section(
            "encoder.model.vit", image_px=16, patch_px=8, width=8, depth=1, num_heads=1
        )
    )
    jitter = augment.ColorJitter(0.1, 0.1, 0.1)
    sizes = small_configs.section(
        "encoder.model.dino",
        num_prototypes=5,
        head_width=8,
        bottleneck=4,
        num_local=1,
        local_px=8,
        center_momentum=0.9,
    )
    first_stage = autoencoder.AutoencoderConfig(
        "vq",
        3,
        conv.ConvConfig(3, 8, (1, 2), 1, latent_conv="1x1"),
        small_configs.section("autoencoder.model.vq", num_codes=16, dead_below=0.5),
        small_configs.section("autoencoder.model.light"),
    )
    weights = autoencoder_loss.LossConfig(
        1.0, 0.3, "encoder", 0.0, "", 0.1, 1.0, discriminator.AdversarialConfig(0.5, 1, 8, 2)
    )
    return {
        "infonce": infonce.InfoNCETask(model, infonce.InfoNCEConfig(0.1, 8, 4), jitter, 16),
        "dino": dino.DINOTask(model, sizes, jitter, 16),
        "autoencoder": autoencoder_loss.AutoencoderTask(
            first_stage, weights, lambda params, x, y: 0.0 * jnp.mean(x), {}, tasks.images(16)
        ),
    }


def train(
    mesh,
    method,
    *,
    remat="none",
    accumulate=1,
    task=None,
    num_steps=NUM_STEPS,
    storage="flat",
    rules=RULES,
):
    """The state after a few steps; the losses, and FLOPs of a step where they are known."""
    make = make_images if task else make_batch
    task = task or denoising()
    tx = OPTIMIZER.transform(NUM_STEPS)
    key = rng.stream(0, "init")
    state, shardings = parallel.born_sharded(task, tx, key, mesh, rules, storage)
    compute = step_lib.ComputeConfig("float32", remat, accumulate)
    update = step_lib.Update(task, tx, OPTIMIZER.ema_decay, compute)
    step_fn = parallel.compile_step(update, method, shardings, mesh)
    losses, count = [], jax.process_count()
    share = slice(jax.process_index() * BATCH // count, (jax.process_index() + 1) * BATCH // count)
    for i in range(num_steps):
        local = {name: value[share] for name, value in make(i).items()}
        state, metrics = step_fn(state, mesh_lib.to_global(local, mesh), rng.stream(0, "step"))
        losses.append(float(metrics["loss"]))
    figures = {"losses": np.array(losses), "flops": np.array(step_fn.flops or np.nan)}
    return state, figures


def save(path, state, figures):
    from jax.experimental import multihost_utils

    state, whole = named.state(state), dict(figures)
    for part in ("params", "ema_params", "opt_state"):
        for name, leaf in jax.tree_util.tree_leaves_with_path(getattr(state, part)):
            if jax.process_count() > 1:
                leaf = multihost_utils.process_allgather(leaf, tiled=True)
            whole[f"{part}{jax.tree_util.keystr(name)}"] = np.asarray(leaf)
    if jax.process_index() == 0:
        np.savez(path, **whole)


def run_devices(folder):
    """Every way one process has, with eight devices."""
    assert jax.device_count() == 8
    make = lambda data, fsdp: mesh_lib.make_mesh(mesh_lib.MeshConfig(data, fsdp, 1, RULES))
    one = jax.sharding.Mesh(np.array(jax.devices()[:1]).reshape(1, 1, 1), mesh_lib.AXES)
    save(folder / "one.npz", *train(one, "jit"))
    save(folder / "pmap.npz", *train(make(-1, 1), "pmap"))
    save(folder / "data8.npz", *train(make(8, 1), "jit"))
    save(folder / "parts.npz", *train(make(4, 2), "jit", remat="blocks", accumulate=2))
    save(folder / "fsdp8.npz", *train(make(1, 8), "jit"))
    state, figures = train(make(-1, 2), "jit")
    save(folder / "data4_fsdp2.npz", state, figures)
    require_halves_of_vectors(state)
    state, figures = train(make(-1, 2), "jit", storage="arrays")
    save(folder / "arrays.npz", state, figures)
    require_halves_of_kernels(state)
    rules = ("out/kernel$ = -2:model", *RULES)
    mesh = mesh_lib.make_mesh(mesh_lib.MeshConfig(2, 2, 2, rules))
    state, figures = train(mesh, "jit", rules=rules)
    save(folder / "model2.npz", state, figures)
    for part in (state.params, state.ema_params, state.opt_state[1].mu, state.opt_state[1].nu):
        kernel = part.vectors["out/kernel"]
        assert kernel.addressable_shards[0].data.shape == (3, 3, 4, 2), kernel.shape


def require_halves_of_vectors(state):
    """Parameters, their average and both moments of Adam: on each device, half of every kernel."""
    kernels = flat.leaves(state.params)
    kernels = [kernels[name]["kernel"] for name in ("context", "in", "out")]
    for part in (state.params, state.ema_params, state.opt_state[1].mu, state.opt_state[1].nu):
        split, whole = part.vectors["float32/matrices/fsdp"], part.vectors["float32/vectors/"]
        # On each, with zeros up to a whole tile.
        assert split.size == 2 * 1024 > sum(kernel.size for kernel in kernels)
        assert split.addressable_shards[0].data.size == split.size // 2
        assert whole.addressable_shards[0].data.size == whole.size
    # The first device of fsdp holds the first halves.
    first = state.params.vectors["float32/matrices/fsdp"].addressable_shards[0].data
    halves = [np.split(kernel, 2, axis=-1)[0].ravel() for kernel in map(np.asarray, kernels)]
    count = sum(half.size for half in halves)
    np.testing.assert_array_equal(first[:count], np.concatenate(halves))
    assert not np.asarray(first[count:]).any()


def require_halves_of_kernels(state):
    """The same, where arrays are held as arrays."""
    kernels = 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        held = leaf.addressable_shards[0].data.shape
        if jax.tree_util.keystr(path).endswith("['kernel']"):
            assert held == (*leaf.shape[:-1], leaf.shape[-1] // 2), (path, held)
            kernels += 1
        else:
            assert held == leaf.shape, (path, held)
    assert kernels == 3 * 4


def run_tasks(folder):
    """The other tasks on one device and on eight."""
    make = lambda data, fsdp: mesh_lib.make_mesh(mesh_lib.MeshConfig(data, fsdp, 1, RULES))
    one = jax.sharding.Mesh(np.array(jax.devices()[:1]).reshape(1, 1, 1), mesh_lib.AXES)
    ways = {"one": (one, "jit"), "mesh": (make(4, 2), "jit"), "pmap": (make(-1, 1), "pmap")}
    own = {"infonce": ("one", "mesh"), "dino": ("one", "mesh"), "autoencoder": ("one", "pmap")}
    for name, task in far_tasks().items():
        for way in own[name]:
            mesh, method = ways[way]
            save(folder / f"{name}-{way}.npz", *train(mesh, method, task=task, num_steps=3))


def run_process(folder, number, port):
    """One of two processes of four devices: data over the processes, fsdp inside them."""
    jax.distributed.initialize(f"127.0.0.1:{port}", 2, number)
    assert jax.device_count() == 8
    mesh = mesh_lib.make_mesh(mesh_lib.MeshConfig(-1, 2, 1, RULES))
    state, figures = train(mesh, "jit")
    save(folder / "processes.npz", state, figures)
    require_restored(folder / "checkpoints", state)
    require_moved(folder, state)
    hosts.leave_together()
    jax.distributed.shutdown()


def require_restored(folder, state):
    """A state that no process holds all of comes back from disk where it was, and as it was."""
    save_checkpoint(folder, state)
    require_same(restored(folder, jax.tree.map(jnp.zeros_like, state)), state)
    average = jax.tree.leaves(named.on_this_host(state.ema_params))
    for a, b in zip(average, jax.tree.leaves(checkpoint.load_params(folder)), strict=True):
        np.testing.assert_array_equal(a, b)


def require_moved(folder, vectors):
    """From devices that hold vectors to such that hold arrays, all along fsdp, and back: no number
    changes."""
    mesh = mesh_lib.make_mesh(mesh_lib.MeshConfig(1, -1, 1, RULES))
    tx, key = OPTIMIZER.transform(NUM_STEPS), rng.stream(1, "init")
    fresh, _ = parallel.born_sharded(denoising(), tx, key, mesh, RULES, "arrays")
    arrays = restored(folder / "checkpoints", fresh)
    kernel = arrays.params["in"]["kernel"]
    assert kernel.addressable_shards[0].data.shape == (3, 3, 2, 1)
    save_checkpoint(folder / "moved", arrays)
    require_same(restored(folder / "moved", jax.tree.map(jnp.zeros_like, vectors)), vectors)


def save_checkpoint(folder, state):
    checkpoints = checkpoint.Checkpoints(epath.Path(folder))
    checkpoints.save(NUM_STEPS, state)
    checkpoints.close()


def restored(folder, like):
    checkpoints = checkpoint.Checkpoints(epath.Path(folder))
    state = checkpoints.restore(like)
    checkpoints.close()
    return state


def require_same(found, wanted):
    """The same numbers on the same devices."""
    for before, after in zip(jax.tree.leaves(wanted), jax.tree.leaves(found), strict=True):
        assert after.sharding == before.sharding
        for a, b in zip(before.addressable_shards, after.addressable_shards, strict=True):
            np.testing.assert_array_equal(a.data, b.data)


def launch(devices, *args):
    environment = os.environ | {
        "PYTHONPATH": f"{ROOT}:{ROOT}/tests",
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(devices),
        "NPROC": "16",  # XLA's threads: its collectives wait for one another
        # Compiling is nearly all of the time.
        "XLA_FLAGS": "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true",
        "JAX_COMPILATION_CACHE_DIR": str(args[0] / "cache"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    command = [sys.executable, __file__, *map(str, args)]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def finish(*processes):
    try:
        for process in processes:
            _, errors = patience.communicate(process)
            assert process.returncode == 0, errors[-3000:]
    finally:
        for process in processes:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Way → arrays of its last state."""
    folder = tmp_path_factory.mktemp("parallel")
    finish(launch(8, folder, "devices"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    finish(*(launch(4, folder, number, port) for number in (0, 1)))
    return {path.stem: dict(np.load(path)) for path in folder.glob("*.npz")}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_gives_the_numbers_of_one_device(results, way):
    assert results[way].keys() == results["one"].keys()
    for name, value in results["one"].items():
        if name == "flops":
            continue
        np.testing.assert_allclose(
            results[way][name], value, rtol=1e-5, atol=1e-5, err_msg=f"{way}: {name}"
        )


def test_flops_are_those_of_the_model_whatever_devices_do(results):
    wanted = results["one"]["flops"]
    # 16 examples of 64 pixels: two convolutions of 2 × 3 × 3 × 2 × 8 and as much again for each
    # gradient; the rest is elementwise.
    least = 2 * 16 * 64 * 9 * 2 * 8 * (2 + 2 + 1)
    assert least < wanted < 2 * least
    counted = [way for way in WAYS if way != "pmap"]
    for way in counted:
        # Each device sums and divides the gradient it scatters: up to 8 tiles, mostly zeros here,
        # by a few operations an element.
        excess = (
            8 * (8 * 1024) * 4 if "fsdp" in way or way in ("processes", "model2", "parts") else 0
        )
        np.testing.assert_allclose(
            results[way]["flops"], wanted, rtol=0.01, atol=excess, err_msg=way
        )
    assert np.isnan(results["pmap"]["flops"])


def test_the_numbers_mean_something(results):
    one = results["one"]
    names = [name for name in one if name.startswith("params")]
    assert len(names) == 6
    assert len(set(one["losses"])) == NUM_STEPS
    # After three steps the average differs from the parameters by more than what is tolerated.
    difference = [np.abs(one[n] - one[n.replace("params", "ema_params", 1)]).max() for n in names]
    assert min(difference) > 1e-4


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    """(task, way) → arrays of its last state."""
    folder = tmp_path_factory.mktemp("tasks")
    finish(launch(8, folder, "tasks"))
    return {tuple(p.stem.split("-")): dict(np.load(p)) for p in folder.glob("*.npz")}


@pytest.mark.parametrize(
    ("task", "way"), [("infonce", "mesh"), ("dino", "mesh"), ("autoencoder", "pmap")]
)
def test_losses_that_see_the_whole_batch_see_it_on_eight_devices(others, task, way):
    # Gradients, as Adam's first moment sums them up. Parameters would show what Adam makes of the
    # rounding of a gradient that is zero, as that of the bias of keys is.
    wanted = {n: v for n, v in others[task, "one"].items() if "mu" in n or n == "losses"}
    assert len(wanted) > 10
    for name, value in wanted.items():
        np.testing.assert_allclose(
            others[task, way][name], value, rtol=1e-3, atol=1e-5, err_msg=f"{task}: {name}"
        )


@pytest.fixture(scope="module")
def mesh():
    return mesh_lib.make_mesh(mesh_lib.MeshConfig(-1, 1, 1, ()))


@pytest.mark.parametrize("sizes", [(2, 1, 1), (-1, 3, 1), (-1, -1, 1), (0, 1, 1), (1, 1, -2)])
def test_mesh_that_does_not_fit_the_devices_is_refused(sizes):
    message = "must multiply to the 1 devices, got data={}, fsdp={}, model={}".format(*sizes)
    with pytest.raises(ValueError, match=message):
        mesh_lib.make_mesh(mesh_lib.MeshConfig(*sizes, ()))


@pytest.mark.parametrize("rule", ["kernel$", "kernel$ = fsdp", "kernel$ = -1:fsdq", "= 0:fsdp"])
def test_bad_rule_is_refused_by_name(mesh, rule):
    with pytest.raises(ValueError, match="regex = dimension:axis") as caught:
        mesh_lib.tree_shardings({"kernel": jnp.zeros((2, 2))}, mesh, (rule,))
    assert repr(rule) in str(caught.value)


class Device:
    """As much of a device as a mesh is made by."""

    def __init__(self, number, process):
        self.id, self.process_index, self.platform = number, process, "cpu"


@pytest.mark.parametrize(
    ("count", "given", "sizes"),
    [
        (4, (-1, 0, 1), (1, 4, 1)),
        (16, (-1, 0, 1), (2, 8, 1)),
        (12, (-1, 0, 1), (2, 6, 1)),
        (8, (-1, 0, 2), (1, 4, 2)),
        (8, (2, 0, 1), (2, 4, 1)),
    ],
)
def test_fsdp_of_zero_takes_what_fits(count, given, sizes):
    assert mesh_lib.axis_sizes(mesh_lib.MeshConfig(*given, ()), count) == sizes


def test_a_rule_must_begin_with_a_regex_and_name_something(mesh):
    with pytest.raises(ValueError, match="must begin with a regex, got"):
        mesh_lib.MeshConfig(-1, 1, 1, ("*kernel = -1:fsdp",))
    with pytest.raises(ValueError, match="must name arrays of the model, got 'bias"):
        mesh_lib.tree_shardings({"kernel": jnp.zeros((2, 2))}, mesh, ("bias = 0:fsdp",))


def test_devices_along_model_are_of_one_process():
    devices = [Device(i, i // 2) for i in range(4)]
    mesh_lib.require_one_process(devices, (2, 1, 2))
    with pytest.raises(ValueError, match="model=4 over processes \\[0, 0, 1, 1\\]"):
        mesh_lib.require_one_process(devices, (1, 1, 4))


def test_first_matching_rule_wins_and_what_does_not_divide_is_whole():
    mesh = jax.sharding.AbstractMesh((2, 2, 1), mesh_lib.AXES)
    tree = {
        "unet": {"kernel": jnp.zeros((3, 4)), "bias": jnp.zeros(4)},
        "head": {"kernel": jnp.zeros((4, 5))},
    }
    rules = ("unet/.*kernel = 1:data", "kernel$ = -1:fsdp")
    found = jax.tree.map(lambda s: tuple(s.spec), mesh_lib.tree_shardings(tree, mesh, rules))
    assert found["unet"] == {"kernel": (None, "data"), "bias": ()}
    assert found["head"]["kernel"] == ()  # five columns do not divide by two


if __name__ == "__main__":
    if sys.argv[2] == "devices":
        run_devices(pathlib.Path(sys.argv[1]))
    elif sys.argv[2] == "tasks":
        run_tasks(pathlib.Path(sys.argv[1]))
    else:
        run_process(pathlib.Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
