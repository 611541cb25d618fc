"""First parameters without a program that makes them.

To initialise a network, flax runs it, and what XLA compiles of that is a random generator and an
inverse error function for each of hundreds of arrays: seconds to minutes for what is done once. So
the traced computation is followed back from the parameters, and what they need of it, some dozen
kinds of operations on elements, is done by NumPy. Random bits are JAX's own: parameters are those
that flax gives, to rounding.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.extend import core
from jaxtyping import Shaped, UInt32

from ssldiff_jax.core import arrays

Value = np.ndarray | jax.Array
"""NumPy's, but for random keys."""


def evaluate(function: Callable[..., Any], *args: Any) -> Any:
    """`function(*args)`, with NumPy's arrays in its result; only what that needs is computed."""
    closed, shapes = jax.make_jaxpr(function, return_shape=True)(*args)
    values = _run(closed, [_as_numpy(x) for x in jax.tree.leaves(args)])
    return jax.tree.unflatten(jax.tree.structure(shapes), values)


def _as_numpy(x: Any) -> Value:
    is_key = isinstance(x, jax.Array) and jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)
    return x if is_key else np.asarray(x)


def _run(closed: core.ClosedJaxpr, args: list[Value]) -> list[Value]:
    jaxpr = closed.jaxpr
    values: dict[core.Var, Value] = dict(zip(jaxpr.invars, args, strict=True))
    values |= zip(jaxpr.constvars, map(_as_numpy, closed.consts), strict=True)

    def read(atom: core.Var | core.Literal) -> Value:
        if isinstance(atom, core.Literal):
            return np.asarray(atom.val, atom.aval.dtype)
        return values[atom]

    for equation in _needed(jaxpr):
        results = _apply(equation, [read(atom) for atom in equation.invars])
        values |= zip(equation.outvars, results, strict=True)
    return [read(atom) for atom in jaxpr.outvars]


def _needed(jaxpr: core.Jaxpr) -> list[core.JaxprEqn]:
    """The equations that results depend on."""
    is_variable = lambda atom: not isinstance(atom, core.Literal)
    needed, kept = set(filter(is_variable, jaxpr.outvars)), []
    for equation in reversed(jaxpr.eqns):
        if needed.intersection(equation.outvars):
            kept.append(equation)
            needed.update(filter(is_variable, equation.invars))
    return kept[::-1]


def _apply(equation: core.JaxprEqn, args: list[Value]) -> list[Value]:
    primitive, params = equation.primitive, equation.params
    if primitive.name in _CALLS:
        return _run(params[_CALLS[primitive.name]], args)
    if primitive.name == "random_bits" and params["bit_width"] == 32 and args[0].shape == ():
        return [_bits(args[0], params["shape"])]
    numpy = _BY_NAME.get(primitive.name)
    if numpy is None or not all(isinstance(x, np.ndarray) for x in args):
        # Keys, and operations that NumPy has no word for, are JAX's.
        results = primitive.bind(*args, **params)
        results = results if primitive.multiple_results else [results]
        return [_as_numpy(x) for x in results]
    (outvar,) = equation.outvars
    return [np.asarray(numpy(*args, **params), outvar.aval.dtype)]


_CALLS = {
    "jit": "jaxpr", "pjit": "jaxpr", "closed_call": "call_jaxpr",
    "custom_jvp_call": "call_jaxpr", "custom_vjp_call": "call_jaxpr",
}  # fmt: skip
"""Operations that do what is within them, and its place among their parameters."""


def _bits(key: arrays.Key, shape: tuple[int, ...]) -> UInt32[np.ndarray, "..."]:
    """Random bits of any shape by programs of few sizes: the first of more are the same."""
    count = math.prod(shape)
    size = 4 ** max(6, math.ceil(math.log(max(count, 1), 4)))
    return np.asarray(jax.random.bits(key, (size,), np.uint32))[:count].reshape(shape)


def _broadcast(
    x: np.ndarray, *, shape: tuple[int, ...], broadcast_dimensions: tuple[int, ...], **_
) -> np.ndarray:
    sides = dict(zip(broadcast_dimensions, x.shape, strict=True))
    return np.broadcast_to(x.reshape([sides.get(i, 1) for i in range(len(shape))]), shape)


def _slice(
    x: Shaped[np.ndarray, "..."], *, start_indices: Any, limit_indices: Any, strides: Any
) -> np.ndarray:
    steps = strides or (1,) * x.ndim
    return x[tuple(map(slice, start_indices, limit_indices, steps))]


def _erf(x: Shaped[np.ndarray, "..."]) -> np.ndarray:
    # Not at the top: a machine that only computes need not have it.
    import scipy.special

    return scipy.special.erf(x)


def _erf_inv(x: Shaped[np.ndarray, "..."]) -> np.ndarray:
    import scipy.special

    return scipy.special.erfinv(x)


def _elementwise(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args, **_: function(*args)


_BY_NAME: Mapping[str, Callable[..., Any]] = {
    name: _elementwise(function)
    for name, function in {
        "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide,
        "max": np.maximum, "min": np.minimum, "neg": np.negative, "sqrt": np.sqrt,
        "exp": np.exp, "log": np.log, "cos": np.cos, "sin": np.sin,
        "erf": _erf, "erf_inv": _erf_inv, "nextafter": np.nextafter,
        "or": np.bitwise_or, "and": np.bitwise_and, "shift_right_logical": np.right_shift,
        "stop_gradient": np.asarray, "copy": np.asarray,
    }.items()
} | {
    "broadcast_in_dim": _broadcast,
    "slice": _slice,
    "convert_element_type": lambda x, *, new_dtype, **_: x.astype(new_dtype),
    "bitcast_convert_type": lambda x, *, new_dtype: x.view(new_dtype),
    "reshape": lambda x, *, new_sizes, **_: x.reshape(new_sizes),
    "squeeze": lambda x, *, dimensions: np.squeeze(x, dimensions),
    "transpose": lambda x, *, permutation: x.transpose(permutation),
}  # fmt: skip
