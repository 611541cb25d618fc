"""The transformer as a denoiser of several magnifications: its level beside the timestep."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssldiff_jax.diffusion import cells, conditioning, dit, positions
from ssldiff_jax.formats import tensors as reader
from ssldiff_jax.weights import published

SMALL = dit.DiTConfig(
    2, 2, dit.Shape(16, 2, 2), "gelu", "cross_attention",
    positions.PositionsConfig(base=0, scale=1.0),
)  # fmt: skip
BESIDE_T = dataclasses.replace(SMALL, conditioning="scale_shift")
KINDS = pytest.mark.parametrize("config", [SMALL, BESIDE_T], ids=["cross_attention", "scale_shift"])


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


X_T, T, E = normal(0, 2, 8, 8, 2), np.array([3, 700], np.int32), normal(1, 2, 6)


def of_levels(config, num_levels=3, **sizes):
    return conditioning.DenoiserConfig(None, 6, dit=config, num_levels=num_levels, **sizes)


def drawn(sizes, seed=2):
    """No parameter stays at its initial zero."""
    leaves, structure = jax.tree.flatten(published.abstract_denoiser(sizes))
    return structure.unflatten([0.3 * normal(seed + i, *x.shape) for i, x in enumerate(leaves)])


def applied(sizes, params, condition, *more):
    net = conditioning.Denoiser(sizes)
    return jax.jit(net.apply)({"params": params}, X_T, T, condition, *more)


@KINDS
@pytest.mark.parametrize("tokens_per_side", [1, 2])
def test_a_level_is_added_to_the_embedding_of_the_timestep(config, tokens_per_side):
    sizes = of_levels(config, tokens_per_side=tokens_per_side)
    params, embedding = drawn(sizes), normal(3, 2, sizes.cell_dim)
    assert params["level"]["table"].shape == (3, 16)
    plain = dataclasses.replace(sizes, num_levels=0)
    found = []
    for level in range(3):
        # Bias is added where the level is: the same numbers from a network that has none.
        moved = jax.tree.map(np.copy, {k: v for k, v in params.items() if k != "level"})
        moved["dit"]["time_out"]["bias"] += params["level"]["table"][level]
        found.append(applied(sizes, params, sizes.with_level(embedding, level)))
        np.testing.assert_allclose(
            found[-1], applied(plain, moved, embedding), rtol=1e-4, atol=1e-4
        )
        # No embedding is the learnt one, at the same level.
        null = sizes.null(jnp.asarray(sizes.with_level(embedding, level)))
        expected = applied(plain, moved, 0 * embedding)
        np.testing.assert_allclose(applied(sizes, params, null), expected, rtol=1e-4, atol=1e-4)
    assert np.abs(found[0] - found[1]).max() > 0.01


def test_cells_and_a_level_of_each_window():
    sizes = of_levels(BESIDE_T, num_cells=4)
    place = cells.cell_offsets(np.array([[-0.25, -0.6]] * 2))
    packed = cells.pack(normal(21, 2, 4, 6), place)
    params = drawn(sizes)
    both = np.concatenate([sizes.with_level(packed[:1], 0), sizes.with_level(packed[1:], 2)])
    mixed = applied(sizes, params, both)
    for i, level in enumerate((0, 2)):
        alone = applied(sizes, params, sizes.with_level(packed, level))
        np.testing.assert_allclose(mixed[i], alone[i], rtol=1e-4, atol=1e-4)


@KINDS
def test_a_student_is_told_its_step_and_its_level(config):
    sizes = of_levels(config)
    params, condition = drawn(sizes), sizes.with_level(E, 1)
    step = conditioning.Step(np.array([1, 300], np.int32), np.array([1.0, 3.0], np.float32))
    own = drawn(sizes.of_student)["step"]
    blank = own | {"step_out": jax.tree.map(np.zeros_like, own["step_out"])}
    taught = lambda own: applied(sizes.of_student, params | {"step": own}, condition, step)
    expected = applied(sizes, params, condition)
    np.testing.assert_allclose(taught(blank), expected, atol=1e-6)
    assert np.abs(taught(own) - expected).max() > 0.01


def test_what_is_written_is_read_back():
    sizes = of_levels(SMALL)
    params, tensors = drawn(sizes), {}
    for table, part in published.denoiser_parts(sizes, params):
        tensors |= table.save(part)
    file = published.ModelFile("own.safetensors", tensors)
    assert published.conditioner_sizes(file, sizes) == published.ConditionerSizes(6, 0)
    read = published.load_denoiser(file, sizes)
    assert jax.tree.structure(read) == jax.tree.structure(params)
    jax.tree.map(np.testing.assert_array_equal, read, params)
    one_level = of_levels(SMALL, 0)
    tensors.pop("level_embedding.table")
    assert "level" not in published.load_denoiser(file, one_level)
    with pytest.raises(reader.WeightsError, match=r"1 missing: table"):
        published.load_denoiser(file, sizes)
