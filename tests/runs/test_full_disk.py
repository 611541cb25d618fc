"""A disk that is really full, at different places of a step: one line, nothing that was whole is
damaged, and the same command goes on when there is room."""

import contextlib
import hashlib
import os
import pathlib
import shutil
import subprocess

import pytest
import same_outputs

from configs import tiny
from ssldiff_jax.runs import launch
from ssldiff_jax.stages import table

SIZE = 96 << 20
RECORD = {"config.json", "commands.jsonl"}  # written anew by each command, whole or not at all


@pytest.fixture
def disk(tmp_path):
    """A folder with a disk of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small disk")
    yield folder
    # Lazily: files of records stay open.
    subprocess.run(["umount", "-l", str(folder)], check=True)


@contextlib.contextmanager
def filled(folder, room):
    """The disk of a folder with `room` bytes left."""
    filler = folder / "filler"
    with filler.open("wb") as file:
        for _ in range(0, shutil.disk_usage(folder).free - room, 1 << 12):
            file.write(bytes(1 << 12))
    try:
        yield
    finally:
        filler.unlink()


def run(workdir, stages):
    config = tiny.get_config()
    config.stages, config.data.engine.processes = stages, 1
    launch.launch(config.to_dict(), workdir, table.STAGES)


def hashes(workdir):
    """Of all that is whole: what is hidden is on its way."""
    return {
        path.relative_to(workdir): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in workdir.rglob("*")
        if path.is_file() and path.name not in RECORD and not path.name.startswith(".")
    }


def fails_with_one_line(workdir, stage):
    with pytest.raises((*launch.REFUSALS, *launch.USER_ERRORS)) as caught:
        run(workdir, stage)
    (line,) = str(caught.value).splitlines()
    assert " free" in line
    assert str(workdir) in line
    assert not (workdir / stage / "done.json").exists()
    return line


@pytest.mark.parametrize("part", [0.0, 0.02, 0.3, 0.6, 0.95])
def test_patches(tmp_path, disk, part):
    run(tmp_path / "whole", "patches")
    folders = [tmp_path / "whole" / name for name in ("patches", "archive")]
    # Shards are links: they take their room once.
    needed = sum(f.stat().st_size for x in folders for f in x.rglob("*") if f.stat().st_nlink == 1)
    with filled(disk, int(part * needed)):
        fails_with_one_line(disk / "run", "patches")
    left = [p.name for p in (disk / "run" / "archive").glob(".*")]
    assert left == []
    run(disk / "run", "patches")
    assert same_outputs.differences(tmp_path / "whole", disk / "run") == []


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("stage", "parts"),
    [
        ("embeddings", (0.0, 0.3, 0.9)),
        ("report", (0.1, 0.4)),
        pytest.param("latents", (0.0, 0.3, 0.9), marks=pytest.mark.slow),
        pytest.param("encoder", (0.02, 0.2, 0.6), marks=pytest.mark.slow),
        pytest.param("sample", (0.0, 0.2, 0.5, 0.8), marks=pytest.mark.slow),
        pytest.param("grids", (0.1, 0.5), marks=pytest.mark.slow),
    ],
)
def test_other_steps(tmp_path, workdir, disk, stage, parts):
    copies = [tmp_path / "whole", disk / "run"]
    for copy in copies:
        shutil.copytree(workdir, copy, symlinks=True)
        shutil.rmtree(copy / stage)
    whole, tried = copies
    run(whole, stage)
    needed = sum(f.stat().st_size for f in (whole / stage).rglob("*") if f.is_file())
    before = hashes(tried)
    for part in parts:
        with filled(disk, int(part * needed)):
            fails_with_one_line(tried, stage)
        after = hashes(tried)
        assert {path: after.get(path) for path in before} == before
    run(tried, stage)
    assert same_outputs.differences(whole, tried) == []


@pytest.mark.e2e
def test_the_command_ends_with_a_line_and_status_1(disk, command):
    """The traceback lies where there is room."""
    flags = ("--config.stages=patches", "--config.data.engine.processes=1")
    with filled(disk, 300_000):
        result = command(disk / "run", *flags)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    line = result.stderr.splitlines()[-1]
    assert line.startswith(f"error: the disk of {disk / 'run' / 'patches'} must hold ")
    assert "free some space and the same command resumes" in line
    details = pathlib.Path(line.rpartition("[details in ")[2].rstrip("]"))
    assert "Traceback" in details.read_text()
    result = command(disk / "run", *flags)
    assert result.returncode == 0
    assert (disk / "run" / "patches" / "done.json").exists()
