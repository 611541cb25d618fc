"""Kill one process of a run of several at random moments of every step; the others must end and
say why, the same command must go on, and the outputs must be those of a run that was left alone.

python tests/kill_often.py 20 --processes 2
"""

import argparse
import collections
import dataclasses
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time

import numpy as np

ROOT = pathlib.Path(__file__).parents[1]
END_S = 150.0
"""Seconds in which the others must have ended: jax misses a process after 100."""
REASONS = (
    "another process of this run", "has shown no sign of life", "another task died",
    "failed; its log", "failed on host 0",
)  # fmt: skip
"""What one of the lines of a command must say whose process was killed."""


@dataclasses.dataclass(frozen=True)
class Kill:
    """A process that is killed when this part of a step's time has passed."""

    step: str
    part: float
    process: int


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of a kill; `is_late` where the work had ended, and nothing was killed."""

    line: str
    failure: str = ""
    is_late: bool = False


class Command:
    """The launch script at work, its processes and what they say."""

    def __init__(self, count: int, flags: list[str]):
        self._process = subprocess.Popen(
            ["bash", "launch/local_multiprocess.sh", str(count), *flags],
            cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self._process.stdout:
            self.lines.append(line.rstrip())

    @property
    def status(self) -> int | None:
        """Of the script, once it has ended."""
        return self._process.poll()

    def wait(self, seconds: float) -> bool:
        """Whether it ended within that time."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        self._reader.join()
        return True

    def kill(self, number: int) -> bool:
        """Kill one of its processes, by its number among the hosts; False where it has ended."""
        import psutil

        for child in psutil.Process(self._process.pid).children():
            try:
                if child.environ().get("JAX_PROCESS_ID") == str(number):
                    child.kill()
                    return True
            except psutil.NoSuchProcess:
                continue
        return False

    def end(self) -> None:
        """Kill all that is left of it."""
        if self.status is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self.wait(60)

    def step(self) -> str:
        """The step at work, or the last one that began."""
        return next((name for line in reversed(self.lines) if (name := _begun(line))), "start")


def _begun(line: str) -> str | None:
    match = re.search(r"stage (\w+) (starts|resumes)$", line)
    return match and match[1]


def plan(steps: list[str], count: int, processes: int, seed: int) -> list[Kill]:
    """Kills of every step equally often, but for one, in their order."""
    random = np.random.default_rng(seed)
    rest = random.permutation(len(steps))[: count % len(steps)]
    chosen = [*steps * (count // len(steps)), *(steps[number] for number in rest)]
    return [
        Kill(step, float(random.random()), int(random.integers(processes)))
        for step in sorted(chosen, key=steps.index)
    ]


def run_whole(flags: list[str], processes: int) -> float:
    """A run that is left alone; returns its seconds."""
    began, command = time.monotonic(), Command(processes, flags)
    try:
        while not command.wait(5):
            pass
        if command.status:
            sys.exit("\n".join([*command.lines[-30:], f"status {command.status}"]))
    finally:
        command.end()
    return time.monotonic() - began


def kill_once(flags: list[str], processes: int, kill: Kill, seconds: float) -> Outcome:
    """Run until a moment of a step that takes so many seconds, and kill there."""
    command = Command(processes, flags)
    try:
        while command.step() != kill.step and command.status is None:
            time.sleep(0.02)
        time.sleep(kill.part * seconds)
        at = f"{kill.step} after {kill.part * seconds:.1f} of {seconds:.1f} s"
        step = command.step()
        at += f" (in {step})" if step != kill.step else ""
        if command.status is not None or not command.kill(kill.process):
            # Its step was done by an earlier try, and so were all after it.
            is_whole = command.wait(END_S) and command.status == 0
            return Outcome(f"{at}: had ended", "" if is_whole else "ended by itself", is_late=True)
        return _outcome(command, f"{at}, process {kill.process}")
    finally:
        command.end()


def _outcome(command: Command, at: str) -> Outcome:
    killed = time.monotonic()
    if not command.wait(END_S):
        return Outcome(f"{at}: hangs", f"ran on for {END_S:.0f} s")
    reason = next((line for line in command.lines if any(r in line for r in REASONS)), None)
    line = f"{at}: ended {time.monotonic() - killed:.0f} s later, status {command.status}"
    line += f": {reason:.160}" if reason else ""
    if command.status == 0:
        # Killed when nothing was left to do together.
        return Outcome(line, "status 0")
    return Outcome(line, "" if reason else "no line says why")


def main(arguments: argparse.Namespace) -> None:
    """Kill as often as is asked for, then compare."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    import same_outputs

    from ssldiff_jax.formats import atomic
    from ssldiff_jax.runs.command import catalog

    steps = [name for name, row in catalog.ROWS.items() if not row.tool]
    folder = pathlib.Path(arguments.folder or tempfile.mkdtemp(prefix="killed_"))
    workdirs = {name: folder / name for name in ("whole", "killed")}
    flags = {
        name: [f"--config={arguments.config}", f"--workdir={workdir}"]
        for name, workdir in workdirs.items()
    }
    seconds = run_whole(flags["whole"], arguments.processes)
    print(f"left alone: {seconds:.0f} s; {folder}", flush=True)
    failures, met = [], collections.Counter()
    for number, kill in enumerate(
        plan(steps, arguments.count, arguments.processes, arguments.seed), 1
    ):
        done = atomic.read_json(workdirs["whole"] / kill.step / "done.json")
        # No further than its step: a kill that comes late leaves the steps after it to others.
        so_far = ",".join(steps[: steps.index(kill.step) + 1])
        asked = [*flags["killed"], f"--config.stages={so_far}"]
        outcome = kill_once(asked, arguments.processes, kill, done["seconds"])
        print(f"{number}: {outcome.line}", flush=True)
        met[kill.step] += not outcome.is_late
        failures += [f"{number}: {outcome.failure}"] if outcome.failure else []
    seconds = run_whole(flags["killed"], arguments.processes)
    print(f"to the end: {seconds:.0f} s", flush=True)
    failures += same_outputs.differences(workdirs["whole"], workdirs["killed"])
    if failures:
        sys.exit("\n".join(failures))
    if not met.total():
        sys.exit("no kill met a process at work: the same outputs show nothing")
    steps = ", ".join(step for step, count in met.items() if count)
    print(f"{met.total()} of {arguments.count} kills met a process at work ({steps}), same outputs")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("count", type=int, help="kills")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--config", default="configs/tiny.py")
    parser.add_argument("--folder", default="", help="where the two runs lie")
    main(parser.parse_args())
