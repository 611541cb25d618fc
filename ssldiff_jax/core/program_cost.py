"""What a traced program costs, without compiling it: FLOPs of its products and convolutions, and
the bytes that are alive at once where a compiler fuses what lies between them."""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.extend
import jax.numpy as jnp

# What a compiler cannot compute on the way into its consumer: its result lies in memory.
_STORED = (
    "dot_general", "conv_general_dilated", "reduce_", "arg", "cum", "sort", "top_k", "gather",
    "scatter", "dynamic_update_slice", "concatenate", "select_and_", "while", "scan", "cond",
    "custom_call", "psum", "all_", "ppermute", "approx_top_k",
)  # fmt: skip
_MULTIPLIED = ("dot_general", "conv_general_dilated")
# The same bytes, read in another order.
_VIEWS = ("reshape", "transpose", "squeeze", "expand_dims", "rev", "copy")
_BODIES = ("jaxpr", "call_jaxpr", "fun_jaxpr")


@dataclasses.dataclass(frozen=True)
class Cost:
    """Of one run of a program.

    Attributes:
        flops: of products and convolutions, two for each multiplication and addition.
        live_bytes: the most that is alive at once beside what goes in: results of products,
            convolutions and reductions, and what these read. What lies between is computed where
            it is read, as compilers for accelerators do; how they order the work is theirs.
    """

    flops: float
    live_bytes: int


def of(function: Any, *args: Any) -> Cost:
    """Of a function and the shapes of its arguments."""
    closed = jax.make_jaxpr(function)(*args)
    return Cost(flops(closed.jaxpr), live_bytes(closed.jaxpr))


def flops(jaxpr: Any) -> float:
    """Of products and convolutions in a program; loops as often as they go round, of branches the
    dearest. Loops of unknown length count once."""
    return _over_products(jaxpr, _flops_of)


def least_seconds(
    function: Any, *args: Any, flops_per_second: float, bytes_per_second: float
) -> float:
    """Of products and convolutions one after the other, each as long as its work takes or as what
    it reads and writes, whichever is longer; all else as if it were computed on the way."""

    def of_one(equation: Any) -> float:
        moved = sum(_bytes(var.aval) for var in (*equation.invars, *equation.outvars))
        return max(_flops_of(equation) / flops_per_second, moved / bytes_per_second)

    return _over_products(jax.make_jaxpr(function)(*args).jaxpr, of_one)


def _over_products(jaxpr: Any, of_one: Callable[[Any], float]) -> float:
    total = 0.0
    for equation in jaxpr.eqns:
        name, params = equation.primitive.name, equation.params
        if name in _MULTIPLIED:
            total += of_one(equation)
        elif name == "cond":
            total += max(_over_products(branch.jaxpr, of_one) for branch in params["branches"])
        else:
            times = params["length"] if name == "scan" else 1
            total += times * sum(_over_products(body, of_one) for body in _bodies(equation))
    return total


def _flops_of(equation: Any) -> float:
    is_product = equation.primitive.name == "dot_general"
    return (_product_flops if is_product else _convolution_flops)(equation)


def _product_flops(equation: Any) -> float:
    (contracted, _), _ = equation.params["dimension_numbers"]
    left, out = equation.invars[0].aval, equation.outvars[0].aval
    return 2.0 * math.prod(out.shape) * math.prod(left.shape[i] for i in contracted)


def _convolution_flops(equation: Any) -> float:
    """Padding is multiplied as the rest is; zeros that are put between inputs, where a gradient
    undoes a stride, are not."""
    params, right = equation.params, equation.invars[1].aval
    out, numbers = equation.outvars[0].aval, params["dimension_numbers"]
    pairs = 1.0
    for axis, (low, _) in enumerate(params["padding"]):
        taps = right.shape[numbers.rhs_spec[2 + axis]]
        places = out.shape[numbers.out_spec[2 + axis]]
        stride, spread = params["window_strides"][axis], params["lhs_dilation"][axis]
        pairs *= _joined(taps, places, (stride, spread, params["rhs_dilation"][axis], low))
    channels = right.shape[numbers.rhs_spec[1]]
    others = out.shape[numbers.out_spec[0]] * out.shape[numbers.out_spec[1]]
    return 2.0 * pairs * channels * others / params["batch_group_count"]


@functools.cache
def _joined(taps: int, places: int, how: tuple[int, int, int, int]) -> int:
    """Pairs of an output and a tap of one axis that do not meet a zero between inputs."""
    stride, spread, apart, low = how
    if spread == 1:
        return taps * places
    at = lambda tap: (place * stride + tap * apart - low for place in range(places))
    return sum(x % spread == 0 for tap in range(taps) for x in at(tap))


def live_bytes(jaxpr: Any) -> int:
    """The most bytes alive at once beside what goes in: see `Cost`."""
    steps, results = _flat(jaxpr)
    stored = _stored(steps)
    last = _last_uses(steps, results, stored)
    ends: dict[int, list[int]] = {}
    now = most = 0
    for number, step in enumerate(steps):
        for var, size in zip(step.writes, step.sizes, strict=True):
            if var in stored and last.get(var, -1) >= number:
                now += size
                ends.setdefault(last[var], []).append(size)
        most = max(most, now + step.inside)
        now -= sum(ends.pop(number, ()))
    return most


@dataclasses.dataclass(frozen=True)
class _Step:
    """An equation: what it reads and writes by number, bytes of that, and those alive inside."""

    name: str
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    sizes: tuple[int, ...]
    inside: int


def _flat(jaxpr: Any) -> tuple[list[_Step], list[int]]:
    """The equations of a program with those of its functions in their place, and what it gives."""
    steps: list[_Step] = []
    numbers: dict[Any, int] = {}
    fresh = iter(range(10**9))

    def number(var: Any) -> int:
        if var not in numbers:
            numbers[var] = next(fresh)
        return numbers[var]

    def walk(inner: Any, bound: dict[Any, int]) -> list[int]:
        own = dict(bound)

        def of(var: Any) -> int:
            if not isinstance(var, jax.extend.core.Var):
                return -1
            if var not in own:
                own[var] = next(fresh)
            return own[var]

        for equation in inner.eqns:
            reads = tuple(of(v) for v in equation.invars)
            body = _inlined(equation)
            if body is not None:
                given = dict(zip(body.invars, reads, strict=False))
                outs = walk(body, given)
                own.update(zip(equation.outvars, outs, strict=True))
                continue
            inside = max((live_bytes(b) for b in _bodies(equation)), default=0)
            writes = tuple(of(v) for v in equation.outvars)
            sizes = tuple(_bytes(v.aval) for v in equation.outvars)
            steps.append(_Step(equation.primitive.name, reads, writes, sizes, inside))
        return [of(v) for v in inner.outvars]

    results = walk(jaxpr, {v: number(v) for v in jaxpr.invars})
    return steps, results


def _inlined(equation: Any) -> Any | None:
    """The body of a plain call, whose arguments are those of the equation; None for others."""
    if equation.primitive.name in ("scan", "while", "cond"):
        return None
    for key in _BODIES:
        if key in equation.params:
            body = equation.params[key]
            body = getattr(body, "jaxpr", body)
            if len(body.invars) == len(equation.invars):
                return body
    return None


def _bodies(equation: Any) -> Iterator[Any]:
    """Programs inside an equation."""
    for value in equation.params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            inner = getattr(item, "jaxpr", item)
            if hasattr(inner, "eqns"):
                yield inner


def _stored(steps: list[_Step]) -> set[int]:
    """What lies in memory: what no consumer can compute on its way, and what products read."""
    made_by = {var: step for step in steps for var in step.writes}
    stored = set()
    for step in steps:
        if step.name.startswith(_STORED):
            stored.update(step.writes)
        if step.name in _MULTIPLIED:
            for var in step.reads:
                while (maker := made_by.get(var)) and maker.name in _VIEWS:
                    var = maker.reads[0]
                stored.add(var)
    return stored


def _last_uses(steps: list[_Step], results: list[int], stored: set[int]) -> dict[int, int]:
    """The step until which each is needed; through what is computed where it is read."""
    last = dict.fromkeys(results, len(steps))
    for number in range(len(steps) - 1, -1, -1):
        step = steps[number]
        through = [last[v] for v in step.writes if v in last and v not in stored]
        until = max([number, *through]) if any(v in last for v in step.writes) else -1
        for var in step.reads:
            if until >= 0:
                last[var] = max(last.get(var, -1), until)
    return last


def _bytes(aval: Any) -> int:
    shape, dtype = getattr(aval, "shape", ()), getattr(aval, "dtype", None)
    if dtype is None or jnp.issubdtype(dtype, jax.dtypes.extended):
        return 0
    return math.prod(shape) * dtype.itemsize
