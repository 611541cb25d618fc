"""What pages show of the tool `sweep`: every way in words, and three pictures of one region."""

import numpy as np
import pytest
from PIL import Image

from configs import tiny
from launch.pages import sweep_table
from ssldiff_jax.formats import atomic

_PUBLISHED = tiny.get_config().sweep.variants[-1]


@pytest.mark.parametrize(
    ("way", "said"),
    [
        ("as the run samples", "as the run samples"),
        ("real regions", "real regions"),
        (_PUBLISHED, "as published: stride w/4, guidance 4, 50 steps"),
        (
            "conditioning=dense windows.max_offset=0 windows.last.steps=0",
            "dense, aligned grid, no overlap",
        ),
        (
            "conditioning=cells windows.max_offset=w/8 windows.last.steps=0",
            "cells, moves by w/8, no overlap",
        ),
        ("windows.last.steps=1", "the last step overlaps"),
        ("windows.last.steps=2", "the last 2 steps overlap"),
        ("windows.last.overlap=0.25", "last steps overlap by 0.25"),
        ("windows.mode=overlap windows.stride=w/2", "overlap in all steps, stride w/2"),
        ("guidance.scale=1.0", "no guidance"),
        ("guidance.interval=(0.4,1.0) guidance.scale=2.5", "guidance 2.5 on 0.4–1.0"),
        ("guidance.scale=2.0 guidance.rescale=0.7", "guidance 2.0, rescale 0.7"),
        ("solver.num_solver_steps=20", "20 steps"),
        ("student=guidance", "student, guidance alone"),
        ("student=strides visits=4", "student, 4 long steps"),
        ("student=strides visits=1", "student, 1 long step"),
    ],
)
def test_a_way_is_said_in_words(way, said):
    assert sweep_table.words(way) == said


def test_no_way_of_the_default_is_left_in_code():
    said = [sweep_table.words(way) for way in tiny.get_config().sweep.variants]
    assert not [words for words in said if "=" in words or "_" in words]
    assert len(set(said)) == len(said)


def _swept(folder, shape):
    rows = [
        {"variant": "real regions", "last_step_seams": 1.024, "last_step_seams_error": 0.011},
        {"variant": "", "unet_forwards": 1234, "judge/retrieval": 0.756, "class_iou": None},
        {"variant": _PUBLISHED, "unet_forwards": 99000, "judge/retrieval": 0.25},
    ]
    rows[1]["variant"] = "as the run samples"
    atomic.write_json(folder / "sweep" / "results.json", rows)
    sample = {
        "solver": {"num_solver_steps": 12},
        "guidance": {"scale": 2.0, "interval": [0.4, 1.0]},
        "conditioning": "dense",
    }
    atomic.write_json(folder / "sweep" / "stage.json", {"config": {"sample": sample}})
    # A run may be trained on one machine and swept on another.
    machine = {"cores": 2, "processor": "abacus"}
    atomic.write_json(folder / "environment.json", {"machine": machine | {"cores": 64}})
    done = {"finished": "2020-01-02T00:00:00+0000", "versions": {"jax": "1.2"}}
    atomic.write_json(folder / "sweep" / "done.json", done | {"machine": machine})
    for name, level in (("reference", 10), ("1", 90), ("2", 170)):
        image = Image.fromarray(np.full((*shape, 3), level, np.uint8))
        image.save(folder / "sweep" / f"{name}.png")


def test_the_table_has_a_row_for_every_way(tmp_path):
    assert sweep_table.collect(tmp_path) is None
    _swept(tmp_path, (24, 24))
    lines = sweep_table.markdown(sweep_table.collect(tmp_path)).splitlines()
    assert lines[0].startswith("2 cores of abacus; 2020-01-02, jax 1.2.")
    assert lines[1] == "in 12 steps, with guidance 2 on 0.4–1."
    assert lines[5].startswith("| real regions | – | – | 1.02 ± 0.01 | – | – |")
    assert lines[6].startswith("| as the run samples | 1234 | – | – | – | 0.76 | – | – |")
    assert lines[7].startswith("| as published: stride w/4, guidance 4, 50 steps | 99000 |")
    assert len({line.count("|") for line in lines[3:]}) == 1


@pytest.mark.parametrize(
    ("shape", "of_picture"), [((24, 24), (24, 88)), ((24, 60), (88, 60)), ((60, 24), (60, 88))]
)
def test_the_picture_shows_real_published_and_own(tmp_path, shape, of_picture):
    _swept(tmp_path, shape)
    picture = np.asarray(sweep_table.picture(tmp_path))
    assert picture.shape == (*of_picture, 3)
    if shape[1] > shape[0]:
        picture = picture.swapaxes(0, 1)
    # Between pictures of 24 px lie 8 px of white; the published way was sampled second.
    assert [int(picture[0, at, 0]) for at in (0, 23, 24, 31, 32, 55, 56, 63, 64, 87)] == [
        *(10, 10, 255, 255),
        *(170, 170, 255, 255),
        *(90, 90),
    ]
