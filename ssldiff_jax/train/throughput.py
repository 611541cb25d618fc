"""How fast a training runs, and how much of the devices it uses."""

import time

import jax

from ssldiff_jax.train import chips


class Throughput:
    """Counts steps and time between two looks at it."""

    def __init__(self, batch_size: int):
        device = jax.devices()[0]
        self._batch_size = batch_size
        self._chip = chips.chip(device.device_kind)
        self._began: float | None = None
        self._waited, self._steps = 0.0, 0

    def step(self) -> None:
        """A step was started; the first one, which is compiled, is not counted."""
        if self._began is None:
            self._began = time.monotonic()
        else:
            self._steps += 1

    def pause(self, seconds: float) -> None:
        """Leave out time that no step took."""
        if self._began is not None:
            self._began += seconds

    def read(self, flops: float | None, waited: float) -> dict[str, float]:
        """Means since the last look: seconds and examples, the part of the time that waited for
        data (`waited` seconds since the start), model FLOPs and their part of the peak, memory.

        `flops` are those of one step over all devices; what is not known is left out.
        """
        if not self._steps:
            return {}
        now = time.monotonic()
        seconds = max(now - self._began, 1e-9) / self._steps
        rates = {
            "step_seconds": seconds,
            "examples_per_second": self._batch_size / seconds,
            "input_wait": (waited - self._waited) / max(now - self._began, 1e-9),
        }
        if flops:
            rates["flops_per_second"] = flops / seconds
            if self._chip:
                rates["mfu"] = flops / seconds / (self._chip.flops * jax.device_count())
        memory_stats = jax.local_devices()[0].memory_stats() or {}
        if "peak_bytes_in_use" in memory_stats:
            rates["peak_device_gb"] = memory_stats["peak_bytes_in_use"] / 1e9
        self._began, self._waited, self._steps = now, waited, 0
        return rates
