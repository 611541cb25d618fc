"""What a command reads again of stages that were made."""

import collections

import pytest
import small_configs

from configs import demo
from ssldiff_jax.core import schema
from ssldiff_jax.formats import atomic
from ssldiff_jax.runs import launch, stage
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.runs.workdir import provenance
from ssldiff_jax.stages import table as stages

WIDTH, DEPTH = 3, 6


def ladder():
    """A table whose stages read all of the level before: WIDTH ** DEPTH ways lead to the first."""
    table = {"patches": stage.Stage(lambda context: {}, ("data",))}
    level = ("patches",)
    for depth in range(DEPTH):
        names = tuple(f"stage{depth}x{i}" for i in range(WIDTH))
        table |= {name: stage.Stage(lambda context: {}, (), level) for name in names}
        level = names
    return table | {"last": stage.Stage(lambda context: {}, (), level, always=True)}


@pytest.fixture
def read(monkeypatch):
    """Path → how often its JSON was read."""
    counts, inner = collections.Counter(), atomic.read_json

    def counted(path):
        counts[path] += 1
        return inner(path)

    monkeypatch.setattr(atomic, "read_json", counted)
    return counts


def test_a_record_is_read_once_for_each_time_it_was_written(tmp_path, read):
    """Of 30 000 slides that of `patches` has 3 MB; it was read by every way that led to it."""
    table, workdir = ladder(), tmp_path / "run"
    launch.launch(small_configs.values_for("all"), workdir, table)
    read.clear()
    launch.launch(small_configs.values_for("last"), workdir, table)
    records = {path: count for path, count in read.items() if path.name == "stage.json"}
    # Nothing of what was made was written again.
    assert all(count <= 1 for path, count in records.items() if path.parent.name != "last")


def test_what_is_written_anew_is_seen(tmp_path):
    table, workdir = ladder(), tmp_path / "run"
    launch.launch(small_configs.values_for("all"), workdir, table)
    with pytest.raises(stage.WorkdirError, match=r"'patches' of another config .*jpeg_quality"):
        launch.launch(
            small_configs.values_for("last", data__records__jpeg_quality=71), workdir, table
        )
    launch.launch(
        small_configs.values_for("patches", force="patches", data__records__jpeg_quality=71),
        workdir,
        table,
    )
    with pytest.raises(stage.WorkdirError, match="an earlier stage was rebuilt"):
        launch.launch(
            small_configs.values_for("last", data__records__jpeg_quality=71), workdir, table
        )
    launch.launch(
        small_configs.values_for("all", force="all", data__records__jpeg_quality=71), workdir, table
    )
    launch.launch(small_configs.values_for("last", data__records__jpeg_quality=71), workdir, table)


def test_what_was_made_before_a_key_came_was_made_as_its_default_has_it(tmp_path):
    table, workdir = ladder(), tmp_path / "run"
    launch.launch(small_configs.values_for("all"), workdir, table)
    record = workdir / "patches" / "stage.json"
    noted = atomic.read_json(record)
    assert noted["config"]["data"]["records"].pop("jpeg_quality") == 95
    atomic.write_json(record, noted)
    launch.launch(
        small_configs.values_for("patches", data__records__jpeg_quality=95), workdir, table
    )
    with pytest.raises(stage.WorkdirError, match=r"\(data.records.jpeg_quality: 95 → 71\)"):
        launch.launch(
            small_configs.values_for("patches", data__records__jpeg_quality=71), workdir, table
        )


def test_tokens_decide_what_is_embedded_and_nothing_before_it():
    def made_from(name, per_side):
        values = demo.get_config()
        values.embeddings.tokens_per_side = per_side
        config = schema.build(run_config.RunConfig, values.to_dict())
        return provenance.values(stages.STAGES[name], config, None)

    assert made_from("embeddings", 2)["embeddings.tokens_per_side"] == 2
    same = [n for n in stages.STAGES if made_from(n, 1) == made_from(n, 2)]
    assert {"patches", "encoder", "judge", "autoencoder", "latents", "grids"} <= set(same)
    assert "embeddings" not in same


def _chain(with_student=True):
    """A table whose images follow a student, and whose figures read the images."""
    table = {"patches": stage.Stage(lambda context: {}, ("data",))}
    if with_student:
        table["distill"] = stage.Stage(lambda context: {}, ("distill.steps",), ("patches",))
    table["sample"] = stage.Stage(lambda context: {}, (), ("patches",), follows=("distill",))
    table["evaluate"] = stage.Stage(lambda context: {}, (), ("sample",))
    return table


def test_images_of_an_older_student_are_outdated_and_so_is_what_reads_them(tmp_path):
    workdir = tmp_path / "run"
    launch.launch(small_configs.values_for("all"), workdir, _chain())
    newer = small_configs.values_for("distill", force="distill", distill__steps=5)
    launch.launch(newer, workdir, _chain())
    for name in ("sample", "evaluate"):
        with pytest.raises(stage.WorkdirError, match="an earlier stage was rebuilt"):
            launch.launch(small_configs.values_for(name, distill__steps=5), workdir, _chain())
    again = small_configs.values_for("sample,evaluate", force="sample,evaluate", distill__steps=5)
    launch.launch(again, workdir, _chain())
    launch.launch(small_configs.values_for("all", distill__steps=5), workdir, _chain())


def test_a_student_is_not_made_anew_under_images_that_stay(tmp_path):
    """Before anything runs: else the images of the same command would be found outdated after
    hours."""
    workdir = tmp_path / "run"
    launch.launch(small_configs.values_for("all"), workdir, _chain())
    both = small_configs.values_for("distill,sample", force="distill", distill__steps=5)
    with pytest.raises(stage.WorkdirError, match="'distill'"):
        launch.launch(both, workdir, _chain())


def test_images_that_followed_nothing_stay(tmp_path):
    workdir = tmp_path / "run"
    launch.launch(small_configs.values_for("all"), workdir, _chain(with_student=False))
    launch.launch(small_configs.values_for("distill"), workdir, _chain())
    launch.launch(small_configs.values_for("all"), workdir, _chain())


def test_sizes_of_the_network_that_is_not_used_are_no_part_of_a_record():
    """A run of before there was a second network goes on, whatever a config says of that one."""

    def made_from(**keys):
        values = demo.get_config()
        for key, value in keys.items():
            *sections, last = key.split("__")
            part = values.denoiser
            for section in sections:
                part = part[section]
            part[last] = value
        config = schema.build(run_config.RunConfig, values.to_dict())
        return provenance.values(stages.STAGES["denoiser"], config, None)["denoiser"]

    assert "dit" not in made_from()
    assert made_from() == made_from(dit__shape__depth=9)
    assert made_from() != made_from(unet__num_res_blocks=3)
    of_dit = made_from(network="dit")
    assert "unet" not in of_dit
    assert of_dit != made_from(network="dit", dit__shape__depth=9)
