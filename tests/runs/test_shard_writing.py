"""Reading, the devices and writing go on at once, and stop together."""

import concurrent.futures
import contextlib
import threading
import time

import numpy as np
import pytest

from ssldiff_jax.data import ahead, loader, store
from ssldiff_jax.runs import shard_writing

FIELDS = (store.Field("x", (2,), "float32"),)
LOADER = loader.LoaderConfig(num_threads=4, prefetch=0)


class Device:
    """Computes one batch after the other while nobody waits, each in some seconds."""

    def __init__(self, seconds):
        self.seconds, self.busy = seconds, 0.0
        self._queue = concurrent.futures.ThreadPoolExecutor(1)

    def start(self, numbers):
        return self._queue.submit(self._compute, numbers).result

    def close(self):
        self._queue.shutdown()

    def _compute(self, numbers):
        began = time.perf_counter()
        time.sleep(self.seconds)
        self.busy += time.perf_counter() - began
        return expected_of(numbers)


def expected_of(numbers):
    x = np.asarray(numbers)
    return {"x": np.stack([x, np.sqrt(x)], axis=1).astype(np.float32)}


@contextlib.contextmanager
def busy_share(seconds):
    """What a device has computed of the time meanwhile."""
    began, share = time.perf_counter(), []
    with contextlib.closing(Device(seconds)) as device:
        yield device, share
        share.append(device.busy / (time.perf_counter() - began))


def test_the_device_is_busy_while_batches_are_read_and_written(tmp_path):
    """A thread reads a batch in 0.12 s, the device takes 0.08 s for it, and writing 0.07 s: one
    after the other the device works half of the time, even where four threads read ahead."""
    count = 24
    read = lambda numbers: time.sleep(0.12) or np.array(numbers)
    tally = lambda batch: time.sleep(0.07) or np.zeros(1)

    def in_turn(device, folder):
        shared = store.SharedStore(folder, FIELDS, 4 * count, 32)
        for number in range(shared.num_shards):
            every = shared.examples(number)
            parts = [every[i : i + 4] for i in range(0, len(every), 4)]
            batches = ahead.ahead(read, parts, threads=4, count=4)
            shared.write(number, (device.start(batch)() for batch in batches), tally)

    def together(device, folder):
        shared = store.SharedStore(folder, FIELDS, 4 * count, 32)
        work = shard_writing.Work(read, device.start, 4, LOADER)
        shard_writing.write(shared, "x", work, tally)

    shares, values = [], []
    for name, way in (("in turn", in_turn), ("together", together)):
        with busy_share(0.08) as (device, share):
            way(device, tmp_path / name)
        shares += share
        files = sorted((tmp_path / name).glob("*.array_record"))
        values.append([path.read_bytes() for path in files])
    assert len(values[0]) == 3
    assert values[0] == values[1]
    assert shares[0] < 0.6
    assert shares[1] > 0.8


@pytest.mark.parametrize(
    ("count", "size", "shard"), [(1, 4, 8), (40, 4, 8), (43, 5, 12), (9, 50, 4)]
)
def test_a_store_has_its_examples_in_order_whatever_batches_and_shards(
    tmp_path, count, size, shard
):
    shared = store.SharedStore(tmp_path, FIELDS, count, shard)
    with contextlib.closing(Device(0.0)) as device:
        shard_writing.write(shared, "x", shard_writing.Work(np.array, device.start, size, LOADER))
    shared.close()
    assert [s.count for s in store.Store(tmp_path).shards] == [
        min(shard, count - start) for start in range(0, count, shard)
    ]
    np.testing.assert_array_equal(
        store.Store(tmp_path).batch(range(count))["x"], expected_of(range(count))["x"]
    )


def test_shards_that_are_there_are_not_read_again(tmp_path):
    shared, numbers = store.SharedStore(tmp_path, FIELDS, 30, 6), []
    read = lambda part: numbers.extend(part) or np.array(part)
    for number in (0, 3):
        shared.write(number, [expected_of(shared.examples(number))])
    with contextlib.closing(Device(0.0)) as device:
        work = shard_writing.Work(read, device.start, 6, LOADER)
        shard_writing.write(shared, "x", work)
        assert sorted(numbers) == [*range(6, 18), *range(24, 30)]
        shard_writing.write(shared, "x", work)
    assert len(numbers) == 18
    assert shared.missing() == []


class BrokenError(Exception):
    pass


def failing(function, at):
    """A function that fails when it is called for the example `at`."""

    def run(numbers):
        if at in np.ravel(numbers["x"][:, 0] if isinstance(numbers, dict) else numbers):
            raise BrokenError("disk 7 is broken")
        return function(numbers)

    return run


def no_sum(batch):
    return np.zeros(1)


@pytest.mark.parametrize("where", ["reading", "starting", "computing", "writing"])
def test_what_fails_is_raised_and_all_threads_end(tmp_path, where):
    threads = set(threading.enumerate())
    shared = store.SharedStore(tmp_path, FIELDS, 4000, 16)
    with contextlib.closing(Device(0.0)) as device:
        read, start, tally = np.array, device.start, no_sum
        if where == "reading":
            read = failing(read, 41)
        elif where == "starting":
            start = failing(start, 41)
        elif where == "computing":
            start = lambda numbers: lambda: failing(expected_of, 41)(numbers)
        else:
            tally = failing(tally, 41)
        with pytest.raises(BrokenError, match=r"^disk 7 is broken$"):
            shard_writing.write(shared, "x", shard_writing.Work(read, start, 4, LOADER), tally)
    assert set(threading.enumerate()) == threads
    # Whole shards before it stay, and nothing half is left.
    assert shared.missing()[0] == 2
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == [f"0000{i}.{end}" for i in (0, 1) for end in ("array_record", "json")]


@pytest.mark.parametrize(("threads", "prefetch", "ready"), [(1, 0, 1), (3, 0, 3), (2, 28, 7)])
def test_few_batches_are_held_however_slow_the_writing_is(tmp_path, threads, prefetch, ready):
    """Beside the one that is written `ready` are read ahead, and BEGUN are with the device."""
    begun, written, held = [], [], []
    read = lambda part: begun.append(part) or np.array(part)

    def tally(batch):
        written.append(batch)
        time.sleep(0.01)  # time to read all, were it allowed
        held.append(len(begun) - len(written))
        return np.zeros(1)

    shared = store.SharedStore(tmp_path, FIELDS, 240, 48)
    config = loader.LoaderConfig(num_threads=threads, prefetch=prefetch)
    with contextlib.closing(Device(0.0)) as device:
        work = shard_writing.Work(read, device.start, 4, config)
        shard_writing.write(shared, "x", work, tally)
    assert len(written) == 60
    assert max(held) <= ready + shard_writing.BEGUN
    assert max(held) >= ready
