"""The transformer: its blocks, where things lie, its sizes, and as a denoiser."""

import dataclasses
import functools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssldiff_jax.core import blocks, platform
from ssldiff_jax.diffusion import cells, conditioning, dit, positions

COUNT_ON = positions.PositionsConfig(base=0, scale=1.0)
SMALL = dit.DiTConfig(2, 2, dit.Shape(16, 2, 2), "gelu", "cross_attention", COUNT_ON)
BESIDE_T = dataclasses.replace(SMALL, conditioning="scale_shift")
KINDS = pytest.mark.parametrize("config", [SMALL, BESIDE_T], ids=["cross_attention", "scale_shift"])


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


X_T, T, E = normal(0, 2, 8, 8, 2), np.array([3, 700], np.int32), normal(1, 2, 6)


def denoiser_of(config, **sizes):
    sizes = {"embedding_length": "root_dim"} | sizes
    return conditioning.Denoiser(conditioning.DenoiserConfig(None, 6, dit=config, **sizes))


def random_params(model, *args, seed=2):
    """No parameter stays at its initial zero."""
    like = jax.eval_shape(model.init, jax.random.key(0), *args)["params"]
    leaves, structure = jax.tree.flatten(like)
    return structure.unflatten([0.3 * normal(seed + i, *x.shape) for i, x in enumerate(leaves)])


def count(tree):
    return sum(x.size for x in jax.tree.leaves(tree))


@KINDS
def test_a_loop_over_blocks_is_what_they_give_written_out(config):
    model = denoiser_of(config)
    params = random_params(model, X_T, T, E)
    wanted = normal(9, *X_T.shape)

    def loss(params):
        prediction = model.apply({"params": params}, X_T, T, E)
        return jnp.mean((prediction - wanted) ** 2), prediction

    value_and_grad = lambda: jax.jit(jax.value_and_grad(loss, has_aux=True))
    (_, written_out), grads = value_and_grad()(params)
    # The program of another device, run here: a loop, and that device's form of attention.
    with platform.compile_for("tpu"):
        program = value_and_grad().lower(params)
        assert "while" in program.as_text()
        (_, looped), looped_grads = program.compile()(params)
    np.testing.assert_allclose(looped, written_out, rtol=1e-4, atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=1e-5),
                 looped_grads, grads)  # fmt: skip


@KINDS
@pytest.mark.parametrize("mlp", ["gelu", "swiglu"])
def test_the_gradient_is_the_slope(config, mlp):
    model = denoiser_of(dataclasses.replace(config, mlp=mlp))
    params = jax.tree.map(lambda x: 0.5 * x, random_params(model, X_T, T, E))
    wanted = normal(9, *X_T.shape)
    direction = jax.tree.map(lambda x: normal(5, *x.shape), params)

    @jax.jit
    def loss(way):
        moved = jax.tree.map(lambda x, d: x + way * d, params, direction)
        return jnp.mean(wanted * model.apply({"params": moved}, X_T, T, E))

    # Richardson: the error of central differences falls with the fourth power of the step.
    slope = lambda h: (loss(h) - loss(-h)) / (2 * h)
    expected = (4 * slope(0.005) - slope(0.01)) / 3
    assert float(jax.grad(loss)(0.0)) == pytest.approx(float(expected), rel=0.01)


def test_a_block_is_the_identity_where_gates_are_zero_and_no_token_speaks():
    block, x, tokens = dit.Block(SMALL), normal(3, 2, 5, 16), normal(4, 2, 3, 16)
    modulation = np.zeros((2, 1, 6 * 16), np.float32)
    params = random_params(block, x, modulation, tokens)
    gates = np.array([0, 0, 1, 0, 0, 1], bool)
    params["table"][gates] = 0.0
    params["cross"]["out"] = jax.tree.map(np.zeros_like, params["cross"]["out"])
    np.testing.assert_array_equal(block.apply({"params": params}, x, modulation, tokens), x)
    params["table"][2] = 1.0
    assert np.abs(block.apply({"params": params}, x, modulation, tokens) - x).max() > 0.01


@KINDS
def test_an_untrained_transformer_predicts_nothing(config):
    model = denoiser_of(config)
    params = jax.jit(model.init)(jax.random.key(0, impl="rbg"), X_T, T, E)["params"]
    np.testing.assert_array_equal(model.apply({"params": params}, X_T, T, E), 0)


def test_blocks_start_as_different_draws_of_the_same_law():
    wide = dataclasses.replace(SMALL, shape=dit.Shape(64, 3, 2))
    params = denoiser_of(wide).init(jax.random.key(0), X_T, T, E)["params"]
    kernels = params["dit"]["blocks"][blocks.STACKED]["mlp_in"]["kernel"]
    assert kernels.shape == (3, 64, 256)
    # LeCun's: variance 1 / inputs.
    np.testing.assert_allclose(kernels.std(axis=(1, 2)), 64**-0.5, rtol=0.03)
    assert abs(np.corrcoef(kernels[0].ravel(), kernels[1].ravel())[0, 1]) < 0.05


def test_sines_of_places_are_their_formula():
    dim, base, scale, rows, cols = 16, 6, 2.0, 3, 4
    config = positions.PositionsConfig(base, scale)
    found = positions.of_patches(config, rows, cols, dim)
    for row in range(rows):
        for col in range(cols):
            # The column's first: sin, then cos, at four frequencies.
            expected = [
                function(where * base / size / scale * 10_000 ** (-i / 4))
                for where, size in ((col, cols), (row, rows))
                for function in (math.sin, math.cos)
                for i in range(4)
            ]
            np.testing.assert_allclose(found[row * cols + col], expected, atol=1e-6)


def test_a_larger_window_counts_on_or_spans_the_same():
    of = functools.partial(positions.of_patches, dim=8)
    grid = lambda config, n: of(config, n, n).reshape(n, n, 8)
    np.testing.assert_array_equal(grid(COUNT_ON, 8)[:4, :4], grid(COUNT_ON, 4))
    spread = positions.PositionsConfig(4, 1.0)
    np.testing.assert_allclose(grid(spread, 8)[::2, ::2], grid(spread, 4), atol=1e-6)


def test_a_token_of_each_patch_lies_half_a_patch_behind_it():
    # The centre of patch i is i + ½ patches from the window's corner.
    config = positions.PositionsConfig(0, 0.5)
    half = positions.sines(*(np.divmod(np.arange(16), 4) + np.array([[0.5], [0.5]])) / 0.5, 12)
    found = positions.of_tokens(config, cells.PatchTokens(4).place, 4, 4, 12)
    np.testing.assert_allclose(found[0], half, atol=1e-6)


@pytest.mark.parametrize(("base", "scale"), [(-1, 1.0), (0, 0.0)])
def test_positions_that_are_none_are_refused(base, scale):
    with pytest.raises(ValueError, match=f"base ≥ 0 and scale > 0, got base={base}"):
        positions.PositionsConfig(base, scale)


# Peebles and Xie 2023, tables 1 and 5: millions of parameters with one layer of modulation in each
# block, a class table of 1 001 and outputs of variance.
@pytest.mark.parametrize(("name", "published"), [("S", 33), ("B", 130), ("L", 458), ("XL", 675)])
def test_sizes_have_the_published_parameters(name, published):
    shape = dit.SIZES[name]
    config = dit.DiTConfig(4, 2, shape, "gelu", "scale_shift", COUNT_ON)
    like = jax.eval_shape(
        dit.DiT(config).init, jax.random.key(0), jnp.zeros((1, 32, 32, 4)), jnp.zeros(1, jnp.int32),
        jnp.zeros((1, 1, shape.width)),
    )["params"]  # fmt: skip
    own, d = count(like), shape.width
    of_one_layer = d * 6 * d + 6 * d
    # A layer in each block for the one of all and its tables, and one of the end.
    theirs = own + (shape.depth - 1) * of_one_layer - shape.depth * 6 * d
    theirs += 2 * d * d + 2 * d - 2 * d + 1001 * d + 4 * 2 * 2 * (d + 1)
    assert theirs / 1e6 == pytest.approx(published, abs=0.6)


@pytest.mark.parametrize(
    ("name", "base", "scale", "per_side"),
    [("pixcell_256", 16, 1.0, 1), ("pixcell_1024", 64, 2.0, 4)],
)
def test_the_full_size_is_pixcells(golden_path, name, base, scale, per_side):
    where = positions.PositionsConfig(base, scale)
    config = dit.DiTConfig(16, 2, dit.SIZES["XL"], "gelu", "cross_attention", where)
    sizes = conditioning.DenoiserConfig(None, 1536, "own", tokens_per_side=per_side, dit=config)
    args = (jnp.zeros((1, 32, 32, 16)), jnp.zeros(1, jnp.int32), jnp.zeros((1, sizes.cell_dim)))
    like = jax.eval_shape(conditioning.Denoiser(sizes).init, jax.random.key(0), *args)["params"]
    names = json.loads(golden_path("pixcell_full_size_names.json").read_text())[name]
    stored = sum(math.prod(shape) for shape in names.values())
    assert stored == {1: 608_074_496, 4: 608_122_112}[per_side]
    # Beside ours: outputs of a variance, and the table of sixteen tokens' places.
    variance, table = 2 * 2 * 16 * (1152 + 1), 16 * 1536 if per_side == 4 else 0
    assert count(like) + variance + table == stored


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((16, 2, 3), "num_heads must divide width .*got width=16, depth=2, num_heads=3"),
        ((16, 0, 2), "depth be at least 1, got width=16, depth=0"),
        ((18, 1, 2), "width must be a multiple of 4, got 18"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(shape, message):
    with pytest.raises(ValueError, match=message):
        dit.Shape(*shape)


def test_a_window_has_whole_patches():
    with pytest.raises(ValueError, match=r"multiples of the patch, got 8 × 7, patch=2"):
        SMALL.patches(X_T[:, :, :7])


@KINDS
def test_the_zero_vector_is_the_null_embedding(config):
    model = denoiser_of(config, embedding_length="own")
    params = random_params(model, X_T, T, E)
    null = np.repeat(params["conditioner"]["null"], 2, axis=0)
    apply = jax.jit(lambda e: model.apply({"params": params}, X_T, T, e))
    np.testing.assert_allclose(apply(0 * E), apply(null), atol=1e-6)
    # One of two examples is null.
    some = np.stack([E[0], 0 * E[1]])
    np.testing.assert_allclose(apply(some)[0], apply(E)[0], atol=1e-5)
    np.testing.assert_allclose(apply(some)[1], apply(0 * E)[1], atol=1e-5)


def four_cells(left, right):
    """A window halved by a border between cells, from left to right."""
    place = cells.cell_offsets(np.array([[0.0, -0.5]] * len(left)))
    return cells.pack(np.stack([left, right, left, right], axis=1), place)


@pytest.mark.parametrize("per_side", [1, 2])
def test_a_cell_leads_the_patches_that_it_covers(per_side):
    model = denoiser_of(BESIDE_T, num_cells=4, tokens_per_side=per_side)
    dim = per_side**2 * 6
    one, other, third = (normal(seed, 2, dim) for seed in (11, 12, 13))
    params = random_params(model, X_T, T, four_cells(one, other))
    out = params["dit"]["blocks"][blocks.STACKED]["out"]
    # Patches that do not look at each other.
    out.update(jax.tree.map(np.zeros_like, out))
    apply = jax.jit(lambda e: model.apply({"params": params}, X_T, T, e))
    before, after = apply(four_cells(one, other)), apply(four_cells(one, third))
    np.testing.assert_allclose(before[:, :, :4], after[:, :, :4], atol=1e-5)
    assert np.abs(before[:, :, 4:] - after[:, :, 4:]).max() > 0.01


@KINDS
def test_the_order_of_cells_says_nothing(config):
    model = denoiser_of(config, num_cells=4)
    embedding, place = normal(21, 2, 4, 6), cells.cell_offsets(np.array([[-0.25, -0.6]] * 2))
    params = random_params(model, X_T, T, cells.pack(embedding, place))
    apply = jax.jit(lambda e: model.apply({"params": params}, X_T, T, e))
    order = np.array([2, 0, 3, 1])
    moved = apply(cells.pack(embedding[:, order], place[:, order]))
    np.testing.assert_allclose(apply(cells.pack(embedding, place)), moved, atol=1e-4)
    # Where they lie does.
    elsewhere = apply(cells.pack(embedding[:, order], place))
    assert np.abs(elsewhere - moved).max() > 0.01


@KINDS
def test_tokens_of_a_patch_lie_somewhere(config):
    model = denoiser_of(config, tokens_per_side=2)
    tokens = normal(31, 2, 4, 6)
    params = random_params(model, X_T, T, tokens.reshape(2, -1))
    apply = jax.jit(lambda e: model.apply({"params": params}, X_T, T, e.reshape(2, -1)))
    assert np.abs(apply(tokens) - apply(tokens[:, ::-1])).max() > 0.01


@KINDS
def test_a_student_with_its_teachers_parameters_is_its_teacher(config):
    teacher = denoiser_of(config)
    student = conditioning.Denoiser(teacher.config.of_student)
    params = random_params(teacher, X_T, T, E)
    step = conditioning.Step(np.array([1, 300], np.int32), np.array([1.0, 3.0], np.float32))
    own = jax.jit(student.init)(jax.random.key(0, impl="rbg"), X_T, T, E, step)["params"]["step"]
    apply = lambda own: student.apply({"params": params | {"step": own}}, X_T, T, E, step)
    found, expected = apply(own), teacher.apply({"params": params}, X_T, T, E)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    # Once it has learnt something of a step it is told apart.
    learnt = own | {"step_out": jax.tree.map(lambda x: x + 0.3, own["step_out"])}
    assert np.abs(apply(learnt) - expected).max() > 0.01


def test_bfloat16_is_near_and_stays_bfloat16():
    model = denoiser_of(BESIDE_T, num_cells=4)
    condition = four_cells(E, E[::-1])
    params = random_params(model, X_T, T, condition)
    half = lambda tree: jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), tree)
    exact = model.apply({"params": params}, X_T, T, condition)
    rounded = model.apply({"params": half(params)}, half(X_T), T, condition)
    assert rounded.dtype == jnp.bfloat16
    assert np.abs(rounded.astype(np.float32) - exact).max() < 0.1 * np.abs(exact).max()


def test_swiglu_has_about_as_many_parameters():
    swiglu = dataclasses.replace(SMALL, shape=dit.SIZES["B"], mlp="swiglu")
    gelu = dataclasses.replace(swiglu, mlp="gelu")
    args = (jnp.zeros((1, 4, 4, 2)), jnp.zeros(1, jnp.int32), jnp.zeros((1, 1, 768)))
    sizes = [
        count(jax.eval_shape(dit.DiT(c).init, jax.random.key(0), *args)) for c in (swiglu, gelu)
    ]
    assert sizes[0] == pytest.approx(sizes[1], rel=0.01)
