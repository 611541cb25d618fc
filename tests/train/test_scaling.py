"""What devices send in a step: closed forms against rings that are passed on piece by piece, and
against what compilers write for 2, 4 and 8 devices.

This file is also the script that those devices run.
"""

import itertools
import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import patience
import pytest

from ssldiff_jax.train import chips, hlo_stats, parallel, scaling
from ssldiff_jax.train import mesh as mesh_lib
from ssldiff_jax.train import step as step_lib

ROOT = pathlib.Path(__file__).parents[2]
MESHES = ((1, 1), (2, 1), (1, 2), (4, 1), (2, 2), (1, 4), (8, 1), (4, 2), (2, 4), (1, 8))
"""Devices along data and fsdp."""
STORAGES = ("flat", "arrays")


class Ring:
    """Devices that hold arrays and pass pieces on, counting the bytes that each sends."""

    def __init__(self, held):
        self.pieces = [np.split(array.copy(), len(held)) for array in held]
        self.sent = np.zeros(len(held), int)

    def scatter_sum(self):
        """Afterwards device i holds the sum of piece i + 1; others are partial."""
        count = len(self.pieces)
        for step in range(count - 1):
            moving = [self.pieces[i][(i - step) % count].copy() for i in range(count)]
            for i, piece in enumerate(moving):
                self.sent[i] += piece.nbytes
                self.pieces[(i + 1) % count][(i - step) % count] += piece

    def gather(self):
        """Of pieces i + 1 on device i: all pieces on all."""
        count = len(self.pieces)
        for step in range(count - 1):
            moving = [self.pieces[i][(i + 1 - step) % count].copy() for i in range(count)]
            for i, piece in enumerate(moving):
                self.sent[i] += piece.nbytes
                self.pieces[(i + 1) % count][(i + 1 - step) % count] = piece

    def owned(self, device):
        """The piece whose sum a device holds."""
        return self.pieces[device][(device + 1) % len(self.pieces)]


@pytest.mark.parametrize("devices", [1, 2, 3, 4, 7, 16])
def test_a_ring_that_is_passed_on_sends_what_the_closed_form_says(devices):
    held = np.random.default_rng(devices).integers(0, 9, (devices, 3 * devices)).astype(np.float32)
    ring = Ring(held)
    ring.scatter_sum()
    scattered = ring.sent.copy()
    for device in range(devices):
        np.testing.assert_array_equal(
            ring.owned(device), np.split(held.sum(0), devices)[(device + 1) % devices]
        )
    ring.gather()
    for pieces in ring.pieces:
        np.testing.assert_array_equal(np.concatenate(pieces), held.sum(0))
    num_bytes = held[0].nbytes
    for sent, kind in (
        (scattered, "reduce-scatter"),
        (ring.sent - scattered, "all-gather"),
        (ring.sent, "all-reduce"),
    ):
        np.testing.assert_array_equal(sent, scaling.ring_bytes(kind, num_bytes, devices))


@pytest.mark.parametrize(
    ("inner", "outer", "stride"), [(4, 3, 1), (2, 5, 1), (8, 1, 1), (1, 6, 8), (2, 4, 4)]
)
def test_of_two_networks_the_outer_one_carries_a_piece(inner, outer, stride):
    """Sum inside, sum what is left over the outer network, gather inside."""
    count = inner * outer
    held = np.random.default_rng(count).integers(0, 9, (outer, inner, 2 * count)).astype(np.float32)
    rings = [Ring(group) for group in held]
    for ring in rings:
        ring.scatter_sum()
    crossing = []
    for device in range(inner):
        across = Ring(np.stack([ring.owned(device) for ring in rings]))
        across.scatter_sum()
        across.gather()
        crossing.append(across.sent[0])
        for group, ring in enumerate(rings):
            ring.owned(device)[:] = np.concatenate(across.pieces[group])
    for ring in rings:
        ring.gather()
        for pieces in ring.pieces:
            np.testing.assert_array_equal(np.concatenate(pieces), held.sum((0, 1)))
    network = (chips.Link(inner * stride, 100.0), chips.Link(None, 10.0))
    exchange = scaling.Exchange("all-reduce", held[0, 0].nbytes, count, stride)
    expected = rings[0].sent[0] / 100.0 + crossing[0] / 10.0
    assert exchange.seconds(network) == pytest.approx(expected, rel=1e-12)


def test_groups_that_fill_no_network_evenly_are_cut_where_they_divide():
    """Of 12 devices a network of 8 joins 6, and two of these are left."""
    network = (chips.Link(8, 1.0), chips.Link(None, 1.0))
    inside, across = 2 * 5 / 6 * 60, 2 * 1 / 2 * 60 / 6
    assert scaling.Exchange("all-reduce", 60, 12, 1).seconds(network) == pytest.approx(
        inside + across
    )


def test_one_device_waits_for_nothing():
    alone = scaling.Scaling.of((), chips.NETWORKS["v5e"], 1, 0.1)
    assert (alone.sent_bytes, alone.send_seconds) == (0.0, 0.0)
    assert alone.efficiency == alone.efficiency_overlapped == 1.0
    for kind in ("all-reduce", "all-gather", "reduce-scatter"):
        assert scaling.Exchange(kind, 1e9, 1, 1).sent_bytes == 0


@pytest.mark.parametrize("generation", sorted(chips.NETWORKS))
def test_efficiency_falls_with_devices_towards_a_limit(generation):
    network, size = chips.NETWORKS[generation], 1.6e9
    found = [
        scaling.Scaling.of(
            [scaling.Exchange("all-reduce", size, devices, 1)], network, devices, 0.1
        )
        for devices in (1, 2, 8, 64, 512, 4096, 2**20)
    ]
    for fewer, more in itertools.pairwise(found):
        assert fewer.efficiency > more.efficiency
        assert more.efficiency < more.efficiency_overlapped <= 1
    # Twice all over the inner network, twice what is left over the outer one.
    inner, outer = network
    limit = 2 * size * (1 - 1 / inner.devices) / inner.bandwidth
    limit += 2 * size / inner.devices / outer.bandwidth
    assert found[-1].send_seconds == pytest.approx(limit, rel=1e-3)
    assert found[-1].efficiency == pytest.approx(0.1 / (0.1 + limit), rel=1e-3)


def run_devices(path):
    """What the compiled step of each mesh sends, and what the closed form says, without a mesh of
    devices."""
    import test_parallel

    task, tx = test_parallel.denoising(), test_parallel.OPTIMIZER.transform(20)
    key = jax.eval_shape(lambda: jax.random.key(0))
    batch = {name: jax.ShapeDtypeStruct(x.shape, x.dtype)
             for name, x in test_parallel.make_batch(0).items()}  # fmt: skip
    named = jax.eval_shape(lambda k, b: step_lib.init_state(task, tx, k, b), key, batch)
    update = step_lib.Update(task, tx, 0.9)
    found = []
    for storage, sizes in itertools.product(STORAGES, MESHES):
        config = mesh_lib.MeshConfig(*sizes, 1, test_parallel.RULES)
        mesh = mesh_lib.make_mesh(config, jax.devices()[: np.prod(sizes)])
        blueprint = parallel.Blueprint.of(named, tx, mesh, config.rules, storage)
        step = parallel.jit_step(update, blueprint.shardings, mesh)
        text = step.lower(blueprint.state, batch, key).compile().as_text()
        abstract = mesh_lib.abstract_mesh(config, int(np.prod(sizes)))
        apart = parallel.Blueprint.of(named, tx, abstract, config.rules, storage)
        closed = scaling.of_step(apart.state.params, apart.shardings.params, 4)
        found.append(
            {
                "storage": storage,
                "sizes": sizes,
                "counted": [(c.kind, c.devices, c.sent_bytes) for c in hlo_stats.collectives(text)],
                "closed": [(e.kind, e.devices, e.sent_bytes) for e in closed],
            }
        )
    pathlib.Path(path).write_text(json.dumps(found))


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """(how a state is held, sizes of a mesh) → what a step on it sends, counted and by the closed
    form."""
    path = tmp_path_factory.mktemp("scaling") / "found.json"
    environment = os.environ | {
        "PYTHONPATH": f"{ROOT}:{ROOT}/tests",
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": "8",
        "XLA_FLAGS": "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true",
    }
    command = [sys.executable, __file__, str(path)]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    _, errors = patience.communicate(process)
    assert process.returncode == 0, errors[-3000:]
    return {(one["storage"], *one["sizes"]): one for one in json.loads(path.read_text())}


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("sizes", MESHES)
def test_a_compiled_step_sends_what_the_closed_form_says(compiled, sizes, storage):
    """To the byte, but for the few numbers that are metrics and norms."""
    found = compiled[storage, *sizes]
    counted, closed = (sent_by_group(found[way]) for way in ("counted", "closed"))
    assert bool(closed) == (np.prod(sizes) > 1)
    for key in {*counted, *closed}:
        beside = counted.get(key, 0) - closed.get(key, 0)
        if key[0] == "all-reduce":
            if storage == "arrays":
                # Two biases are added to the same sum: the gradient of both is sent once.
                beside += scaling.ring_bytes("all-reduce", 8 * 4, key[1])
            assert 0 <= beside <= scaling.ring_bytes("all-reduce", 8 * 4, key[1]), key
        else:
            assert beside == 0, key


def sent_by_group(exchanges):
    """(kind, devices of a group) → bytes that each device sends; groups of one send none."""
    sent = {}
    for kind, devices, num_bytes in exchanges:
        if devices > 1:
            sent[kind, devices] = sent.get((kind, devices), 0) + num_bytes
    return sent


if __name__ == "__main__":
    run_devices(sys.argv[1])
