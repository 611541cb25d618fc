"""A walk through all stages with an archive of real counts and tiny pixels.

    .venv/bin/python tests/walk_archive.py --crops=10_000_000 --workdir=/tmp/walk

Not part of the test suite. It writes the archive entries of some hundred slides (records of 8 × 8
px, holes in the tissue, whole cases held out) with the writers that the stage `patches` uses, then
runs the real command on them: every stage, and `verify`. Models are as small as they can be and
train for a few steps, so that counts cost and not arithmetic: one embedding and one latent for
each crop, a tenth as many grids, 10 000 held-out and 100 000 training patches in `evaluate`.

For every stage it tells seconds, CPU seconds, the peak of memory and of open files (of the process
and its children), and the bytes of its folder; it fails where all of it takes more than an hour or
4 GB. The command may have 1024 files open. A crop takes about 1.3 kB on the disk; `--workdir` is
deleted at the end unless `--keep` is given.

`--linked` walks what grows with counts alone: slides of 10 000 crops, of which the first eight
have files of their own and all others link to these, and so for shards of embeddings and latents;
every table, list and manifest has as many entries as it would have. Of memory what counts is
without pages of mapped files (own MB), and nothing is read again (`verify` would hash each link).

Shorter walks: `--simulated` writes embeddings and latents as random numbers before their stages,
which then find all their shards done; `--grids` is how many grids there are; `--no-verify` ends
without reading everything again.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import re
import resource
import shutil
import subprocess
import sys
import threading
import time

import psutil

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests import simulated_archive  # noqa: E402

FILES, BYTES, SECONDS = 1024, 4 * 2**30, 3600


@dataclasses.dataclass
class Row:
    """What a stage took."""

    stage: str
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_bytes: int = 0
    own_bytes: int = 0
    open_files: int = 0
    folder_bytes: int = 0


class Watched:
    """The command, and what it takes by the stage it is at."""

    def __init__(self, folder: pathlib.Path, stages: str):
        self.rows = [Row("start")]
        words = [sys.executable, "-m", "ssldiff_jax.main"]
        words += [f"--config={folder / 'walk_config.py'}", f"--workdir={folder / 'run'}"]
        self._process = subprocess.Popen(
            # One at a time, or nobody could tell whose memory it is.
            [*words, f"--config.stages={stages}", "--config.runtime.side_by_side=never"],
            cwd=ROOT,
            env=os.environ | {"JAX_PLATFORMS": "cpu"},
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, FILES)),
        )
        self._began = self._cpu = 0.0

    def run(self) -> int:
        """Until it ends; returns its exit code."""
        self._began = time.monotonic()
        reader = threading.Thread(target=self._read, daemon=True)
        reader.start()
        while self._process.poll() is None:
            self._look()
            time.sleep(0.5)
        reader.join()
        return self._process.returncode

    def _read(self) -> None:
        for line in self._process.stderr:
            print(line, end="", flush=True)
            if found := re.search(r"stage (\w+) (starts|resumes)", line):
                self._end()
                self.rows.append(Row(found[1]))
        self._end()

    def _end(self) -> None:
        now = time.monotonic()
        self.rows[-1].seconds, self._began = now - self._began, now

    def _look(self) -> None:
        row, memory, own, handles, cpu = self.rows[-1], 0, 0, 0, 0.0
        try:
            whole = psutil.Process(self._process.pid)
            for process in (whole, *whole.children(recursive=True)):
                held = process.memory_info()
                # What is shared are pages of mapped files, which the system takes back as it likes.
                memory, own = memory + held.rss, own + held.rss - held.shared
                handles += process.num_fds()
                times = process.cpu_times()
                cpu += times.user + times.system
        except psutil.Error:
            return
        row.peak_bytes, row.open_files = max(row.peak_bytes, memory), max(row.open_files, handles)
        row.own_bytes = max(row.own_bytes, own)
        row.cpu_seconds += max(cpu - self._cpu, 0)
        self._cpu = cpu


def bytes_in(folder: pathlib.Path) -> int:
    """Of all files, each counted once however many links it has."""
    found = {(s := path.lstat()).st_ino: s.st_size for path in folder.rglob("*") if path.is_file()}
    return sum(found.values())


def table(rows: list[Row]) -> str:
    """The rows for people."""
    titles = ("seconds", "cpu s", "peak MB", "own MB")
    lines = [f"{'stage':12} {' '.join(f'{t:>8}' for t in titles)} {'files':>6} {'MB':>9}"]
    lines += [
        f"{r.stage:12} {r.seconds:8.1f} {r.cpu_seconds:8.1f} {r.peak_bytes / 1e6:8.0f} "
        f"{r.own_bytes / 1e6:8.0f} {r.open_files:6d} {r.folder_bytes / 1e6:9.1f}"
        for r in rows
    ]
    return "\n".join(lines)


def main() -> None:
    """Make the archive, run the command twice, tell what it took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--crops", type=int, default=100_000)
    parser.add_argument("--workdir", type=pathlib.Path, required=True)
    parser.add_argument("--stages", default="all")
    parser.add_argument("--grids", type=int)
    parser.add_argument("--simulated", action="store_true")
    parser.add_argument("--linked", action="store_true")
    parser.add_argument("--no-verify", action="store_true")
    parser.add_argument("--keep", action="store_true")
    asked = parser.parse_args()
    folder = asked.workdir.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    grids = asked.grids or max(asked.crops // 10, 64)
    text = simulated_archive.config_text(folder, asked.crops, grids)
    (folder / "walk_config.py").write_text(text)
    began = time.monotonic()
    linked = asked.linked
    slides = simulated_archive.write_archive(folder, asked.crops, linked=linked)
    if asked.simulated or linked:
        simulated_archive.write_stores(folder, asked.crops, linked=linked)
    print(f"{asked.crops} crops of {slides} slides written in {time.monotonic() - began:.0f} s")
    rows, codes = [], []
    for stages in (asked.stages, *(() if asked.no_verify or linked else ("verify",))):
        watched = Watched(folder, stages)
        codes.append(watched.run())
        rows += watched.rows
    for row in rows:
        row.folder_bytes = bytes_in(folder / "run" / row.stage)
    rows.append(Row("all", sum(r.seconds for r in rows), sum(r.cpu_seconds for r in rows),
                    max(r.peak_bytes for r in rows), max(r.own_bytes for r in rows),
                    max(r.open_files for r in rows),
                    bytes_in(folder / "run")))  # fmt: skip
    print(table(rows))
    told = {"crops": asked.crops, "rows": [dataclasses.asdict(row) for row in rows]}
    print(json.dumps(told))
    if not asked.keep:
        shutil.rmtree(folder)
    if any(codes):
        sys.exit(f"expected the command to end with 0, got {codes}")
    memory = rows[-1].own_bytes if linked else rows[-1].peak_bytes
    if memory > BYTES or rows[-1].seconds > SECONDS:
        sys.exit(f"expected {BYTES} bytes and {SECONDS} s at most, got {rows[-1]}")


if __name__ == "__main__":
    main()
