"""The section `runtime` of a config. It is read before jax is set up, so that nothing here or above
imports jax."""

import dataclasses
from typing import Literal


@dataclasses.dataclass(frozen=True)
class RuntimeConfig:
    """The machine: devices to make of a CPU (0: one), whether freed memory is kept, where
    compiled programs are kept, and whether this is one process of several: found from the
    environment (auto), or as JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID say;
    a bucket for checkpoints, "" for the workdir; and whether stages that do not read one another
    run at the same time."""

    cpu_devices: int
    keep_freed_memory: bool
    compilation_cache: str
    distributed: Literal["off", "auto", "given"]
    checkpoints: str
    side_by_side: Literal["auto", "never"]

    def __post_init__(self):
        if self.cpu_devices < 0:
            raise ValueError(f"cpu_devices must be 0 or more, got {self.cpu_devices}")
