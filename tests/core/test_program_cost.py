"""FLOPs and live bytes of traced programs, against counting by hand and XLA's count."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssldiff_jax.core import program_cost


def shape(*dims, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(dims, dtype)


def flops(function, *args):
    return program_cost.of(function, *args).flops


def live(function, *args):
    return program_cost.of(function, *args).live_bytes


@pytest.mark.parametrize(("a", "b", "batch"), [((3, 5), (5, 7), 1), ((64, 32), (32, 16), 4)])
def test_a_product_takes_two_for_each_term(a, b, batch):
    args = shape(batch, *a), shape(batch, *b)
    assert flops(jnp.matmul, *args) == 2 * batch * a[0] * a[1] * b[1]


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize(
    ("size", "kernel"), [((8, 9), (3, 3)), ((7, 7), (4, 2)), ((16, 16), (1, 1))]
)
def test_convolutions_are_counted_place_by_place(size, kernel, stride, padding):
    """By asking, with ones, how many places meet each output, padding as well as the rest; both
    gradients take about as many."""
    convolve = lambda x, w: jax.lax.conv_general_dilated(
        x, w, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    outputs = convolve(jnp.ones((1, *size, 1)), jnp.ones((*kernel, 1, 1))).size
    args = shape(3, *size, 5), shape(*kernel, 5, 4)
    once = 2 * outputs * kernel[0] * kernel[1] * 3 * 5 * 4
    assert flops(convolve, *args) == once
    # Forward twice, and both gradients.
    every = flops(lambda x, w: jax.vjp(convolve, x, w)[1](convolve(x, w)), *args)
    if stride == 1 and padding == "SAME":
        assert every == 4 * once
    else:  # borders are met more or less often from the other side
        assert 3 * once < every < 6 * once


def test_zeros_between_inputs_are_not_multiplied():
    """The gradient of a stride spreads what comes in over every other place."""
    convolve = lambda x, w: jax.lax.conv_general_dilated(
        x, w, (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    args = shape(1, 64, 64, 8), shape(2, 2, 8, 8)
    once = flops(convolve, *args)
    of_input = lambda x, w: jax.linear_transpose(lambda y: convolve(y, w), x)(convolve(x, w))
    assert flops(of_input, *args) == pytest.approx(2 * once, rel=0.05)


def test_groups_divide_the_work():
    convolve = lambda x, w: jax.lax.conv_general_dilated(
        x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=4
    )
    assert flops(convolve, shape(1, 8, 8, 8), shape(1, 1, 2, 8)) == 2 * 64 * 2 * 8


def test_loops_count_as_often_as_they_go_round():
    square = shape(8, 8)
    once = 2 * 8**3
    scan = lambda x: jax.lax.scan(lambda c, _: (c @ c, None), x, None, length=5)[0]
    assert flops(scan, square) == 5 * once
    branch = lambda x: jax.lax.cond(x.sum() > 0, lambda y: y @ y @ y, lambda y: y, x)
    assert flops(branch, square) == 2 * once
    assert flops(jax.checkpoint(lambda x: x @ x), square) == once


def test_xla_counts_alike_where_products_are_nearly_all():
    def network(params, x):
        for w in params:
            x = jnp.tanh(x @ w)
        return (x**2).mean()

    params = [shape(256, 256)] * 3
    gradient = jax.grad(network)
    own = flops(gradient, params, shape(512, 256))
    theirs = jax.jit(gradient).lower(params, shape(512, 256)).cost_analysis()["flops"]
    assert own == pytest.approx(theirs, rel=0.02)


def test_what_lies_between_products_is_not_held():
    """A chain of products holds two results at once, however much is computed between them."""

    def chain(x, w):
        for _ in range(6):
            x = jax.nn.gelu(x @ w) * 2 + 1
        return x

    n, w = 1000, 64
    args = shape(n, w), shape(w, w)
    each = n * w * 4
    # A product and what the next one reads of it.
    assert live(chain, *args) == 2 * each
    # The gradient needs what every product gave and read.
    gradient = jax.grad(lambda x, w: chain(x, w).sum(), argnums=1)
    assert 11 * each <= live(gradient, *args) <= 14 * each


def test_memory_grows_with_the_batch_and_not_with_what_goes_in():
    loss = lambda w, x: jnp.sum(jax.nn.relu(x @ w) @ w)
    of = lambda n: live(jax.grad(loss), shape(32, 32), shape(n, 32))
    assert of(2000) - of(1000) == pytest.approx(of(3000) - of(2000))
    assert of(10**6) / of(10**5) == pytest.approx(10, rel=0.01)
    assert np.isfinite(of(1))


def test_products_take_as_long_as_their_work_or_what_they_move():
    seconds = lambda f, *args, **rates: program_cost.least_seconds(f, *args, **rates)
    a, b = shape(8, 16), shape(16, 4, dtype=jnp.float32)
    work, moved = 2 * 8 * 16 * 4, 4 * (8 * 16 + 16 * 4 + 8 * 4)
    slow_memory = {"flops_per_second": 1e9, "bytes_per_second": 1.0}
    slow_units = {"flops_per_second": 1.0, "bytes_per_second": 1e9}
    assert seconds(jnp.matmul, a, b, **slow_memory) == moved
    assert seconds(jnp.matmul, a, b, **slow_units) == work
    # What lies between is computed on the way; a loop's body counts as often as it goes round.
    square = lambda x: jnp.tanh(x @ x) + 1
    looped = lambda x: jax.lax.scan(lambda y, _: (square(y), None), x, length=5)[0]
    one = seconds(square, shape(6, 6), **slow_memory)
    assert one == 4 * 3 * 36
    assert seconds(looped, shape(6, 6), **slow_memory) == 5 * one
