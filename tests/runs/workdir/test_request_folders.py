"""Tools that keep what they made of every request, each in a folder of its own."""

import dataclasses
import pathlib
import types

import pytest

from ssldiff_jax.core import names, schema
from ssldiff_jax.runs import runner, stage
from ssldiff_jax.stages.tools import generate
from tests.runs import test_runner
from tests.runs.workdir import test_force


@dataclasses.dataclass(frozen=True)
class Asked(test_runner.Section):
    name: str = dataclasses.field(default="", metadata={"digest": False})


class Work(test_force.Work):
    """The third stage keeps every request, named by its size alone."""

    def __init__(self, workdir):
        super().__init__(workdir)
        slug = lambda config: f"size{config.third.size}"
        self.table["third"] = dataclasses.replace(self.table["third"], tool=True, slug=slug)

    def draw(self, *, force=(), first=None, **settings):
        """The name of the folder that was written or found; and whether it was written."""
        sections = {"third": Asked(**settings)} | ({"first": first} if first else {})
        context, before = self.context(**sections), set(self.names())
        runner.check(self.table, context, ["third"], set(force))
        ran = self.run(["third"], force=force, **sections)
        added = set(self.names()) - before
        return (added.pop() if added else None), bool(ran)

    def names(self):
        root = self.workdir / "third"
        return sorted(path.name for path in root.iterdir()) if root.exists() else []

    def part(self, name):
        return (self.workdir / "third" / name / "part").read_text()


@pytest.fixture
def work(tmp_path):
    made = Work(tmp_path / "run")
    made.run(["first", "second"])
    return made


def test_every_request_has_its_folder_and_the_same_one_is_done(work):
    assert work.draw(size=3) == ("size3", True)
    assert work.draw(size=4) == ("size4", True)
    before = test_force.contents(work.workdir)
    assert work.draw(size=3) == (None, False)
    assert test_force.contents(work.workdir) == before
    # Another request of the same slug.
    assert work.draw(size=3, rate=0.1) == ("size3-2", True)
    assert work.draw(size=3, rate=0.2) == ("size3-3", True)
    assert work.draw(size=3, rate=0.1) == (None, False)
    assert [work.part(name) for name in work.names()] == ["+"] * 4


def test_a_name_of_another_request_is_refused_with_a_free_one(work):
    assert work.draw(name="mine") == ("mine", True)
    assert work.draw(name="mine") == (None, False)
    assert work.draw(name="mine-2", size=4) == ("mine-2", True)
    before = test_force.contents(work.workdir)
    with pytest.raises(
        stage.WorkdirError, match=r"third\.size: 3 → 9.*--config\.third\.name=mine-3"
    ):
        work.draw(name="mine", size=9)
    assert test_force.contents(work.workdir) == before


def test_force_replaces_the_named_one_and_no_other(work):
    work.draw(size=3)
    work.draw(name="mine", size=4)
    work.draw(name="mine", size=5, force=["third"])
    assert work.names() == ["mine", "size3"]
    # The other request is not lost.
    kept = work.workdir / "earlier" / "third-1" / "checkpoints" / "weights"
    assert kept.read_text() == "4"
    assert work.draw(size=3, force=["third"]) == (None, True)
    assert work.part("size3") == "+"


def test_one_that_was_cut_off_goes_on(work):
    work.cut_off("third", chosen=["third"], third=Asked(size=7))
    assert work.draw(size=7) == (None, True)
    assert work.part("size7") == "++"


def test_a_refused_request_keeps_no_name(work):
    third = work.table["third"]

    def refuse(context):
        raise ValueError("expected other bounds")

    work.table["third"] = dataclasses.replace(third, run=refuse)
    with pytest.raises(ValueError, match="other bounds"):
        work.draw(name="mine", size=4)
    work.table["third"] = third
    assert work.names() == []
    assert work.draw(name="mine", size=5) == ("mine", True)


def test_models_made_anew_draw_another_image(work):
    work.draw(size=3)
    work.run(["first", "second"], force=["first", "second"], first=test_runner.Section(size=8))
    assert work.draw(size=3, first=test_runner.Section(size=8)) == ("size3-2", True)


def test_drawings_of_before_names_are_left_alone(work):
    old = work.workdir / "third"
    old.mkdir()
    for name in ("stage.json", "done.json", "image.tif"):
        (old / name).write_text("{}")
    assert work.draw(size=3) == ("size3", True)
    assert (old / "image.tif").read_text() == "{}"


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        (
            ("A large lake, in the west!", "512x768", "", "seed0"),
            "A-large-lake-in-the-west-512x768-seed0",
        ),
        (("../../etc/passwd", "", "seed1"), "etc-passwd-seed1"),
        (("数据 集", "seed0"), "数据-集-seed0"),
        (("x" * 90, "seed0"), "x" * 40 + "-seed0"),
        (("!?", "seed0"), "seed0"),
    ],
)
def test_slugs_are_names_of_folders(parts, expected):
    assert names.slug(*parts) == expected
    names.require("generate.name", expected)
    assert pathlib.PurePath(expected).name == expected


@pytest.mark.parametrize("name", ["../up", "a/b", ".hidden", "-flag", "a b"])
def test_a_name_that_is_no_folder_is_refused(name):
    with pytest.raises(schema.ConfigError, match=r"config\.generate\.name must be letters"):
        names.require("generate.name", name)


def drawing(seed=0, **settings):
    asked = {"text": "", "labels": (), "numbers": (), "is_grid": False}
    asked |= settings.pop("asked", {})
    plain = {"reference": "", "size": (), "region": (), "area": "", "outpaint_px": 0}
    plain |= {"control": "", "held_to": "", "coarse": types.SimpleNamespace(is_asked=False)}
    section = types.SimpleNamespace(**(plain | settings), prior=types.SimpleNamespace(**asked))
    data = types.SimpleNamespace(levels=(1.0,))
    return types.SimpleNamespace(generate=section, seed=seed, level=1.0, data=data)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, "held-out-seed0"),
        (
            {"reference": "/data/TCGA-1.svs", "outpaint_px": 256, "seed": 7},
            "TCGA-1-outpaint256-seed7",
        ),
        (
            {"asked": {"text": "lake, west", "is_grid": True}, "size": (512, 768)},
            "lake-west-512x768-seed0",
        ),
        (
            {"asked": {"labels": ("nuclei=0.5",), "is_grid": True}, "size": (64, 64)},
            "nuclei-0.5-64x64-seed0",
        ),
        ({"asked": {"is_grid": True}, "size": (64, 64)}, "anything-64x64-seed0"),
    ],
)
def test_drawings_are_named_by_what_is_asked(settings, expected):
    assert generate.slug(drawing(**settings)) == expected
