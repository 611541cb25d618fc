"""What a compiler says of a program: memory, work, and what devices send each other."""

import collections
import dataclasses
import math
import re
from typing import Any

from ssldiff_jax.train import chips, scaling

_KINDS = ("all-reduce", "all-gather", "reduce-scatter", "collective-permute", "all-to-all")
_OPERATION = re.compile(rf"= (\(.*?\)|\S+) ({'|'.join(_KINDS)})(-start)?\(")
# A TPU's scatter of sums over the first dimension: a computation of its own, told by its name.
_SCATTER = re.compile(r"^%all-reduce-scatter\S* \(.*\) -> (.*) \{$")
_ANY_OPERATION = re.compile(r"\s+(?:ROOT )?%?[\w.-]+ = (?:\(.*?\)|\S+) ([\w-]+)\(")
_NAMES = {"parameter", "constant", "get-tuple-element", "tuple", "bitcast", "after-all"}
_ARRAY = re.compile(r"([a-z]+\d*)\[([\d,]*)\]")
_DIMENSION = re.compile(r"dimensions=\{(\d+)\}")
# {{0,1},{2,3}}, or [2,2]<=[4]: groups of so many; {} is one of all.
_GROUPS = re.compile(r"replica_groups=(?:\{\{([\d,]+)\}|\[\d+,(\d+)\]<=)")
_PARTITIONS = re.compile(r"num_partitions=(\d+)")
_BITS = {"pred": 8, "bf16": 16, "f8e4m3fn": 8, "f8e5m2": 8}
# Gathers of less than this are of labels, losses and embeddings.
_SMALL = 2**20


@dataclasses.dataclass(frozen=True)
class Collective:
    """What is sent at once: its kind, the arrays that result, the dimension that is joined, and how
    many devices share in it."""

    kind: str
    arrays: tuple[tuple[str, tuple[int, ...]], ...]
    dimension: int | None
    devices: int

    @property
    def num_bytes(self) -> int:
        """Of the arrays that result, on one device."""
        return sum(_bits(dtype) * math.prod(shape) // 8 for dtype, shape in self.arrays)

    @property
    def sent_bytes(self) -> float:
        """What each device sends, in a ring; of what is permuted, all."""
        if self.kind == "collective-permute":
            return self.num_bytes
        parts = self.devices if self.kind == "reduce-scatter" else 1
        return scaling.ring_bytes(self.kind, parts * self.num_bytes, self.devices)


def collectives(hlo: str) -> list[Collective]:
    """Those of a compiled program's text; what a loop repeats is there once."""
    operations, scattered = [], None
    partitions = _PARTITIONS.search(hlo.partition("\n")[0])
    everyone = int(partitions.group(1)) if partitions else 1
    for line in hlo.splitlines():
        if scatter := _SCATTER.match(line):
            scattered = _arrays(scatter.group(1))
        elif line.startswith("}"):
            scattered = None
        match = _OPERATION.search(line)
        if not match:
            continue
        devices = _devices(line, everyone)
        if scattered is not None:
            operations.append(Collective("reduce-scatter", scattered, 0, devices))
            continue
        result, kind, started = match.groups()
        arrays = list(_arrays(result))
        if started and kind != "all-reduce":
            # (operands, results, flags): results are the second half of what is no flag.
            arrays = [a for a in arrays if a[1]]
            arrays = arrays[len(arrays) // 2 :]
        dimension = _DIMENSION.search(line)
        operations.append(
            Collective(kind, tuple(arrays), int(dimension.group(1)) if dimension else None, devices)
        )
    return operations


def _devices(line: str, everyone: int) -> int:
    """How many share in an operation."""
    groups = _GROUPS.search(line)
    if not groups:
        return everyone
    listed, count = groups.groups()
    return int(count) if count else listed.count(",") + 1


def num_operations(hlo: str) -> int:
    """Operations that a program's text starts one after the other: kernels, copies, messages; those
    of a loop once, and what only names memory not."""
    kinds = [
        match.group(1)
        for line in hlo.partition("\nENTRY ")[2].splitlines()
        if (match := _ANY_OPERATION.match(line))
    ]
    return sum(kind not in _NAMES for kind in kinds)


def _arrays(text: str) -> tuple[tuple[str, tuple[int, ...]], ...]:
    return tuple(
        (dtype, tuple(int(n) for n in dims.split(",") if n)) for dtype, dims in _ARRAY.findall(text)
    )


def gathers_of_batch(operations: list[Collective], batch_size: int) -> list[Collective]:
    """Gathers that bring the whole batch to every device; vectors are parameters."""
    return [
        c
        for c in operations
        if c.kind == "all-gather" and c.dimension == 0 and c.num_bytes > _SMALL
        and any(len(shape) > 1 and shape[0] % batch_size == 0 for _, shape in c.arrays)
    ]  # fmt: skip


def describe(compiled: Any, chip: chips.Chip, model_flops: float | None) -> dict[str, Any]:
    """Numbers of one device: bytes by kind, FLOPs, the compiler's roofline and what follows from
    it, collectives by kind.

    Args:
        compiled: what `jax.jit(…).lower(…).compile()` gives.
        model_flops: those of the model alone, on one device.

    The roofline knows no communication and counts the body of a loop once: no time is to be
    expected from it, only compared.
    """
    stats, cost, text = compiled.memory_analysis(), _cost(compiled), compiled.as_text()
    sent = collectives(text)
    facts: dict[str, Any] = {
        "argument_bytes": stats.argument_size_in_bytes,
        "output_bytes": stats.output_size_in_bytes,
        "alias_bytes": stats.alias_size_in_bytes,
        "temp_bytes": stats.temp_size_in_bytes,
        "code_bytes": stats.generated_code_size_in_bytes,
        "peak_bytes": stats.argument_size_in_bytes + stats.output_size_in_bytes
        - stats.alias_size_in_bytes + stats.temp_size_in_bytes
        + stats.generated_code_size_in_bytes,
        "memory_bytes": int(chip.memory),
        "operations": num_operations(text),
        "flops": cost.get("flops"),
        "bytes_accessed": cost.get("bytes accessed"),
    }  # fmt: skip
    seconds = cost.get("optimal_seconds", 0.0)
    facts["roofline_seconds"] = seconds if seconds > 0 else None
    facts["model_flops"] = model_flops
    if seconds > 0 and model_flops:
        facts["roofline_mfu"] = model_flops / seconds / chip.flops
    facts["collectives"] = _by_kind(sent)
    return facts


def _by_kind(sent: list[Collective]) -> dict[str, dict[str, Any]]:
    """Count, bytes and the largest arrays of every kind."""
    kinds = {}
    for kind in _KINDS:
        own = [c for c in sent if c.kind == kind]
        if own:
            shapes = collections.Counter(
                f"{dtype}[{','.join(map(str, shape))}]" for c in own for dtype, shape in c.arrays
            )
            kinds[kind] = {
                "count": len(own),
                "bytes": sum(c.num_bytes for c in own),
                "sent_bytes": round(sum(c.sent_bytes for c in own)),
                "shapes": dict(shapes.most_common(8)),
            }
    return kinds


def _cost(compiled: Any) -> dict[str, float]:
    cost = compiled.cost_analysis() or {}
    return cost[0] if isinstance(cost, list) else cost


def _bits(dtype: str) -> int:
    digits = re.sub(r"\D", "", dtype)
    return _BITS.get(dtype) or int(digits)
