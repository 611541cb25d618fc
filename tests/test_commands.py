"""Every command of the pages as a reader types it: in a fresh shell, from the root.

Their data are stand-ins: the folders /data, /weights, /models and /shared lie elsewhere, slides are
pieces of the real one, scenes are drawn, weights are random, and configs are as small as
`small_configs` makes them. Networks of two steps compute nothing of worth; what is tested is that a
reader's words do what the page says.

    bash launch/test.sh -m slow tests/test_commands.py
"""

import importlib.util
import json
import os
import pathlib
import re
import shutil

import h5py
import local_hub
import numpy as np
import pages
import patience
import pytest
import rasterio
import scipy.ndimage
import shapely
import tifffile

from ssldiff_jax.data import demo_slide
from ssldiff_jax.slides import geojson, pyramid
from ssldiff_jax.slides import slide as slide_lib

pytestmark = pytest.mark.slow
ROOT = pathlib.Path(__file__).parents[1]
COMMANDS = pages.all_commands()
"""As the pages have them, in their order: README.md first."""

ELSEWHERE = {
    "bash launch/demo.sh": "launch/demo.sh itself, before every release",
    "bash launch/earth.sh": "launch/earth.sh itself, before every release",
    "bash launch/setup.sh": "launch/demo.sh, which begins with it",
    "bash launch/test.sh": "this suite",
    "pip install apache-beam": "launch/setup.sh test",
    "pip install ./ssldiff_jax": "tests/test_installed.py",
    "configs/eurosat.py": "tests/runs/test_tfds_configs.py: it downloads",
    "configs/colorectal.py": "tests/runs/test_tfds_configs.py: it downloads",
    "launch/tpu_pod.sh": "tests/test_launch.py: it needs gcloud",
    "launch/gke_xpk.sh": "tests/test_launch.py: it needs xpk",
    "sbatch": "tests/test_launch.py: it needs SLURM",
    "launch/readme.sh": "tests/report/test_figures.py: it writes into the pages",
    "launch.pages.pipeline": "tests/test_pages.py: it writes into .assets",
    "launch.pages.tutorial": "tests/generation/test_tutorial.py: it writes into .assets",
    "python -m pytest": "this suite",
    "tests/walk_archive.py": "itself: a million crops take ten minutes",
    "tests/resume_often.py": "tests/train/test_resume.py, once",
}
"""Commands that cannot be run here, and what tests them."""

CORNERS = [(top, left) for top in (0, 1480) for left in (0, 1110)]
CORNER, PART = (64, 128, 3), (192, 128, 3)
REGIONS = {"(0,0,512,512)": "(0,0,64,128)", "(0,0,4096,4096)": "(0,0,192,128)"}
QUARTER = (1480, 1110)  # px of the demo's slide: height and width

PREPARED = {
    "/data/run": (
        "python -m ssldiff_jax.main --config=configs/tcga.py --workdir=/data/run "
        "--config.data.slides='/data/tcga/*.svs'"
    ),
    "runs/demo": "python -m ssldiff_jax.main --config=configs/demo.py --workdir=runs/demo",
    "runs/earth": (
        "python -m ssldiff_jax.main --config=configs/earth.py --workdir=runs/earth "
        "--config.prior.conditions.text_encoder=/models/all-MiniLM-L6-v2"
    ),
    "runs/naip": (
        "python -m ssldiff_jax.main --config=configs/naip_demo.py --workdir=runs/naip "
        "--config.data.slides='/data/naip/*.tif' --config.data.patch_metres=5 "
        "--config.prior.conditions.captions=measured "
        "--config.prior.conditions.text_encoder=/models/all-MiniLM-L6-v2"
    ),
}
"""Work directories that pages take for done."""

APART = ("encoder.name", "embeddings.source", "engine.kind", "naip_demo.py --workdir=runs/naip ")
"""Commands that are other ways to begin, whose work directory is one of their own."""

CONFIG = '''"""A stand-in: {name}, small."""

import small


def get_config(*chosen):
    """The config of the repository, as small as it gets."""
    return small.get_config("{name}", *chosen)
'''

SMALL = '''"""Configs of the repository, shrunk."""

import importlib
import sys

ROOT, TESTS = {root!r}, {tests!r}
STUDY = {{
    "fractions": (0.2, 1.0), "seeds": 2, "resamples": 50, "patches.count": 40,
    "patches.count_test": 40, "patches.num_generated": 1, "patches.network.fit.num_steps": 2,
    "bags.count": 10, "bags.count_test": 10, "bags.side": 2, "bags.network.fit.num_steps": 2,
}}


def get_config(name, *chosen):
    """The named config of the repository itself, small."""
    mine = {{k: sys.modules.pop(k) for k in list(sys.modules) if k.split(".")[0] == "configs"}}
    sys.path[:0] = [ROOT, TESTS]
    try:
        config = importlib.import_module(f"configs.{{name}}").get_config(*chosen)
        models = [config.encoder, config.judge, config.autoencoder, config.denoiser]
        steps = [model.train.num_steps for model in models]
        measured, visits = config.prior.conditions.measure, config.distill.visits
        config = importlib.import_module("small_configs").small(config)
        # One that is published is not trained on, scenes have land cover, and whoever has a student
        # has one, here as there.
        for model, count in zip(models, steps, strict=True):
            model.train.num_steps = min(model.train.num_steps, count)
        if config.encoder.name != "own":
            config.encoder.name = "dino-vits16"
        config.prior.conditions.measure, config.distill.visits = measured, visits
        config.study.update_from_flattened_dict(STUDY)
        return config
    finally:
        del sys.path[:2]
        for k in [k for k in sys.modules if k.split(".")[0] in ("configs", "small_configs")]:
            del sys.modules[k]
        sys.modules.update(mine)
'''


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A clone of the repository with small configs."""
    folder = tmp_path_factory.mktemp("reader") / "clone"
    (folder / "configs").mkdir(parents=True)
    for name in ("ssldiff_jax", "launch", "tests", "README.md", ".venv", ".git"):
        (folder / name).symlink_to(ROOT / name)
    for path in (ROOT / "configs").glob("*.py"):
        if path.stem == "default":
            # Its comments are read as text; nothing starts from it as it is but `compare`.
            shutil.copy(path, folder / "configs")
            shutil.copytree(path.with_name("defaults"), folder / "configs" / "defaults")
        else:
            (folder / "configs" / path.name).write_text(CONFIG.format(name=path.stem))
    (folder / "small.py").write_text(SMALL.format(root=str(ROOT), tests=str(ROOT / "tests")))
    return folder


@pytest.fixture(scope="module")
def given(root, text_folder, golden):
    """What the reader has: slides, scenes, images and weights, in folders that stand for those of
    the pages."""
    folder = root.parent
    _write_slides(folder / "data" / "tcga")
    _write_slides(folder / "data" / "slides")
    _write_slides(folder / "bucket")
    _write_tables(folder / "data")
    _write_scenes(folder / "data" / "naip")
    _write_images(folder / "data")
    (folder / "models").mkdir()
    (folder / "models" / "all-MiniLM-L6-v2").symlink_to(text_folder)
    _write_weights(folder / "weights", golden)
    _write_embeddings(folder / "data" / "ctranspath")
    _write_patches(folder / "data" / "patches")
    pyramid.write_pyramid(root / "slide.svs", _slide_pixels(900, 800, 300, 200), pyramid.Scale(0.5))
    pyramid.write_png(root / "mine.png", _slide_pixels(800, 800, 256, 256))
    kept = np.full((256, 256, 3), 255, np.uint8) * (np.arange(256) < 128)[:, None]
    pyramid.write_png(root / "mask.png", kept)
    for name in ("regions", "corrected"):
        _write_regions(folder / "data" / name)
    _write_region(root / "slide.geojson", Gland=(0, 0, 192, 192))
    _write_region(root / "keep.geojson", Kept=(0, 0, 256, 128))
    for shape in (CORNER, PART):
        pyramid.write_png(folder / f"cells-{shape[0]}.png", np.full(shape, 255, np.uint8))
    return folder


def _slide_pixels(top, left, height, width):
    whole = slide_lib.open_slide(demo_slide.demo_slide())
    return whole.read_region(top, left, height, width, mpp=whole.mpp)


def _write_slides(folder):
    """Quarters of the real slide, each a case of its own."""
    folder.mkdir(parents=True)
    for i, corner in enumerate(CORNERS):
        path = folder / f"TCGA-AA-000{i}-01Z.svs"
        pyramid.write_pyramid(path, _slide_pixels(*corner, *QUARTER), pyramid.Scale(0.5))


def _write_tables(folder):
    """The slides as CLAM lists them: what they are, and what they are for."""
    names = [f"TCGA-AA-000{i}-01Z" for i in range(len(CORNERS))]
    rows = "".join(f"{name[:12]},{name},{'ab'[i % 2]}\n" for i, name in enumerate(names))
    (folder / "dataset.csv").write_text(f"case_id,slide_id,label\n{rows}")
    first, second, third, fourth = names
    splits = f",train,val,test\n0,{first},{second},{third}\n1,{fourth},,\n"
    (folder / "splits_0.csv").write_text(splits)


def _write_scenes(folder):
    """Four bands of smooth noise at 5 m, in UTM."""
    folder.mkdir(parents=True)
    for i, day in enumerate(("20090818", "20170827", "20180716", "20200831")):
        noise = np.random.default_rng(i).normal(size=(4, 724, 934))
        bands = scipy.ndimage.gaussian_filter(noise, (0, 6, 6))
        scaled = (128 + 60 * bands / bands.std()).clip(0, 255).astype(np.uint8)
        where = {"crs": "EPSG:26914", "transform": rasterio.Affine(5, 0, 5e5, 0, -5, 5e6)}
        with rasterio.open(
            folder / f"{day}.tif", "w", driver="GTiff", width=934, height=724, count=4,
            dtype="uint8", **where,
        ) as file:  # fmt: skip
            file.write(scaled)
    items = [
        {
            "type": "Feature", "stac_version": "1.1.0", "id": path.stem, "geometry": None,
            "properties": {"datetime": "2020-01-01T00:00:00Z"}, "links": [],
            "assets": {"image": {"href": path.name, "type": "image/tiff"}},
        }
        for path in sorted(folder.glob("*.tif"))
    ]  # fmt: skip
    found = {"type": "FeatureCollection", "features": items}
    (folder / "found.json").write_text(json.dumps(found))


def _write_regions(folder):
    """Classes in the slides, as QuPath exports them."""
    folder.mkdir()
    height, width = QUARTER
    for i in range(len(CORNERS)):
        whole, corner = (0, 0, width, height), (0, 0, 100, 100)
        path = folder / f"TCGA-AA-000{i}-01Z.geojson"
        _write_region(path, Tumor=whole, Tissue=whole, Fold=corner)


def _write_region(path, **boxes):
    features = [
        geojson.Feature(number, shapely.box(*box), name, name)
        for number, (name, box) in enumerate(boxes.items(), 1)
    ]
    geojson.write(path, features)


def _write_images(folder):
    for name, seed in (("real", 0), ("generated", 1)):
        (folder / name).mkdir()
        generator = np.random.default_rng(seed)
        for i in range(80):
            top, left = generator.integers(300, 2000, 2)
            path = folder / name / f"{i:06d}.png"
            pyramid.write_png(path, _slide_pixels(int(top), int(left) % 1500, 64, 64))


def _write_patches(folder):
    """Squares of 64 px by case, in a folder for each of two classes."""
    generator = np.random.default_rng(2)
    for kind in ("dense", "loose"):
        (folder / kind).mkdir(parents=True)
        for i in range(40):
            top, left = (int(x) for x in generator.integers(300, 1500, 2))
            path = folder / kind / f"case{i % 8}_{i:02d}.png"
            pyramid.write_png(path, _slide_pixels(top, left, 64, 64))


def _write_embeddings(folder):
    """As CLAM lays them down: of patches of 64 px at 2 µm/px, what colours are where."""
    folder.mkdir()
    side, generator = 256, np.random.default_rng(0)
    turn = generator.normal(size=(48, 768)).astype(np.float32)
    for i, corner in enumerate(CORNERS):
        pixels = _slide_pixels(*corner, *QUARTER)
        places = [
            (x, y)
            for y in range(0, QUARTER[0] - side + 1, side)
            for x in range(0, QUARTER[1] - side + 1, side)
        ]
        cut = np.stack([pixels[y : y + side, x : x + side] for x, y in places]) / 255
        colours = cut.reshape(len(cut), 4, side // 4, 4, side // 4, 3).mean(axis=(2, 4))
        with h5py.File(folder / f"TCGA-AA-000{i}-01Z.h5", "w") as file:
            file["coords"] = np.array(places)
            file["coords"].attrs["patch_size"] = side
            file["features"] = (colours.reshape(len(cut), -1) @ turn).astype(np.float32)


def _write_weights(folder, golden):
    """Random ones, in the shapes that the small configs ask for."""
    import inception_weights
    import published_stand_ins
    from safetensors.numpy import save_file

    published_stand_ins.write(folder)
    inception = golden("fid_inception_features").spec["convolutions"]
    path = folder / "pt_inception-2015-12-05-6726825d.pth"
    save_file(inception_weights.drawn(inception), path)
    # The other comes by its command.
    published_stand_ins.write_pixcell(folder / "PixCell-1024", "1024")


@pytest.fixture(scope="module")
def hub(given):
    """What is fetched by address."""
    import published_stand_ins

    there = given / "on the hub"
    published_stand_ins.write_pixcell(there, "256")
    with local_hub.serving() as server:
        server.push("StonyBrook-CVLab/PixCell-256", there)
        yield server


@pytest.fixture(scope="module")
def type_in(root, given, hub):
    """A command as it is typed into a fresh shell; returns what came of it."""
    of_hub = [f"{k}={v}" for k, v in local_hub.environment(hub, given / "hub").items()]

    def run(command):
        command = re.sub(r"(?<![\w.])/(data|weights|models|shared)/", rf"{given}/\1/", command)
        command = command.replace("gs://bucket/", f"{given}/bucket/")
        # The least of the published ones takes a tenth of a second for a patch: few are enough.
        small_encoder = "name=dino-vits16 --config.data.crops.num_crops=64"
        command = re.sub(r"name=(uni2-h|hipt)\b", small_encoder, command)
        for published, small in REGIONS.items():
            command = command.replace(f"region={published}", f"region={small}")
        options = "('--runner=DirectRunner',)"
        command = re.sub(r"beam=\('--runner=DataflowRunner'.*?\)", f"beam={options}", command)
        words = ["env", "-i", f"HOME={given}", f"PATH={os.environ['PATH']}", *of_hub, "bash", "-c"]
        return patience.run([*words, f"source .venv/bin/activate\n{command}"], cwd=root)

    return run


def is_elsewhere(command):
    return any(words in command for words in ELSEWHERE)


def test_every_command_is_typed_or_tested_elsewhere():
    assert len(COMMANDS) > 25
    for words in ELSEWHERE:
        assert any(words in command for command in COMMANDS), words


@pytest.fixture(scope="module")
def prepare(type_in, root, given):
    """Makes the work directories that a command takes for done; returns the command, on a copy of
    its own where it makes a part of one again."""

    def work(typed):
        for name, command in PREPARED.items():
            place = given / name.removeprefix("/") if name.startswith("/") else root / name
            asked = re.search(rf"={re.escape(name)}(?![\w-])", typed)
            if asked and typed != command and not place.exists():
                done = type_in(command)
                assert done.returncode == 0, f"{name}: {done.stderr[-3000:]}"
        if "runs/other" in typed:
            shutil.copytree(root / "runs" / "demo", root / "runs" / "other")
        if "config.force" in typed:
            # Other pages go on with what was there before.
            (place,) = re.findall(r"--workdir=(\S+)", typed)
            apart = typed.replace(place, f"{place}-forced")
            place = given / place.removeprefix("/") if place.startswith("/") else root / place
            shutil.copytree(place, place.with_name(f"{place.name}-forced"), symlinks=True)
            return apart
        return typed

    return work


@pytest.mark.parametrize("command", [c for c in COMMANDS if not is_elsewhere(c)])
def test_a_command_of_the_page_does_its_work(type_in, prepare, command):
    typed = command.partition(" # ")[0]
    for number, words in enumerate(APART):
        if words in typed:
            typed = re.sub(r"--workdir=\S+", rf"\g<0>-{number}", typed)
    done = type_in(prepare(typed))
    assert "Traceback" not in done.stderr
    if "h100" in typed and not importlib.util.find_spec("jax_cuda12_plugin"):
        # It is no package of ours: whoever has a GPU has it, others are told what to install.
        assert done.stderr.splitlines()[-1].startswith("error: the tool compile needs the GPU comp")
    else:
        assert done.returncode == 0, done.stderr[-3000:]


PAGE = pages.texts()["ssldiff_jax/weights/README.md"]
SECTION = PAGE.partition("\n## From a published model to your slide\n")[2].partition("\n## ")[0]
PUBLISHED = re.findall(r"^\| ([^|`]+) \| [^|]+ \| `(--[^`]+)` \|$", SECTION, re.M)
"""Models of the table but the first, whose commands stand above it, and words that name them."""


def test_the_table_has_the_models_that_are_read():
    assert [name for name, _ in PUBLISHED] == [
        "PixCell-256, ControlNet", "PixCell-1024", "LRDM, BRCA 20×", "LRDM, CRC 20×",
        "ZoomLDM, BRCA", "ZoomLDM, NAIP",
    ]  # fmt: skip


@pytest.mark.parametrize(("name", "words"), PUBLISHED, ids=[name for name, _ in PUBLISHED])
def test_the_commands_of_a_published_model_end_with_a_pyramid(name, words, type_in, root, given):
    """Those of the first model, with the words of this one."""
    ask, look, dry, make = pages.commands(SECTION)
    first = look[look.index("--config.denoiser") : look.index("--config.stages")].strip()
    look = look.replace(first, "").replace("--config=configs/pixcell.py:256", words)
    place = "runs/published-" + re.sub(r"\W+", "-", name)
    image = "slide.svs"
    if "NAIP" in name:
        # Finer than its file says, so that there are pixels enough.
        image = f"{given}/data/naip/20090818.tif --config.generate.mpp=1e6"
    if "ControlNet" in name:
        # Beside the first model, which it leads.
        assert type_in(ask).returncode == 0
    for command, shape in (look, CORNER), (dry, PART), (make, PART):
        if "ControlNet" in name:
            command += f" --config.generate.control={given}/cells-{shape[0]}.png"
        done = type_in(command.replace("runs/pixcell", place).replace("slide.svs", image))
        assert done.returncode == 0, done.stderr[-3000:]
        assert "Traceback" not in done.stderr
    images = (root / place / "generate").glob("*/image.tif")
    shapes = sorted(tifffile.TiffFile(path).pages[0].shape for path in images)
    assert shapes == [CORNER, PART]
