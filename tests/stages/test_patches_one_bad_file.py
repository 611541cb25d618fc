"""Whatever is wrong with one file costs that file alone, and is told; copies are used once."""

import json
import os
import pathlib
import shutil

import h5py
import numpy as np
import pytest
import tifffile
from PIL import Image

from configs import demo, tiny
from ssldiff_jax.data import patch_list, records
from ssldiff_jax.runs import launch
from ssldiff_jax.slides import slide as slide_lib
from ssldiff_jax.stages import table

SIDE, PX, CONTEXT = 768, 64, 8


def tissue(seed, height=SIDE, width=SIDE):
    """Pink to purple without symmetry."""
    y, x = np.mgrid[0:height, 0:width] / np.array([height, width])[:, None, None]
    waves = [
        200 + 30 * np.sin(9 * x),
        120 + 40 * np.sin(7 * y + 3 * x),
        170 + 30 * np.cos(5 * x * y),
    ]
    noise = np.random.default_rng(seed).normal(0, 18, (height // 8 + 1, width // 8 + 1, 1))
    image = np.stack(waves, axis=-1) + noise.repeat(8, 0).repeat(8, 1)[:height, :width]
    return image.clip(0, 255).astype(np.uint8)


def write(path, pixels, mpp=0.5, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    resolution = {"resolution": (1e4 / mpp, 1e4 / mpp), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(path, pixels, photometric="rgb", metadata=None, **(resolution | options))
    return path


def patches_of(workdir, slides, *changes, base=demo):
    """Run the stage; returns what the command would say."""
    c = base.get_config()
    c.stages, c.data.slides, c.data.engine.processes = "patches", str(slides), 1
    c.data.regions.rows = c.data.regions.cols = c.data.regions.count = 1
    c.update_from_flattened_dict(dict(changes))
    return launch.launch(c.to_dict(), workdir, table.STAGES)


def quarantine(workdir):
    lines = (workdir / "patches/quarantine.jsonl").read_text(encoding="utf-8").splitlines()
    return {pathlib.PurePath(line["slide"]).name: line["reason"] for line in map(json.loads, lines)}


def facts(workdir):
    return json.loads((workdir / "patches/done.json").read_text())["facts"]


def pixels_by_slide(workdir, split="train"):
    """(place, pixels) of the records of every slide."""
    source, found = records.RecordSource(workdir / "patches/records", split), {}
    for number in range(len(source)):
        slide, top, left, _ = source.places[number].tolist()
        found.setdefault(slide, []).append(((top, left), source[number]))
    return found


def error_to(image, cut):
    """Mean absolute difference of records to the pixels at their places."""
    return np.mean([
        np.abs(image[top : top + len(x), left : left + len(x)].astype(int) - x).mean()
        for (top, left), x in cut
    ])  # fmt: skip


def test_slides_of_one_name_and_size_are_two(tmp_path):
    images = [tissue(1), tissue(2)]
    for number, image in enumerate(images):
        write(tmp_path / f"slides/case{number}/image.tif", image)
    assert patches_of(tmp_path / "run", tmp_path / "slides/**/image.tif") is None
    found = pixels_by_slide(tmp_path / "run")
    assert all(error_to(image, found[number]) < 3 for number, image in enumerate(images))
    assert error_to(images[0], found[1]) > 10


def test_a_slide_replaced_in_place_is_another(tmp_path):
    path = write(tmp_path / "a.tif", tissue(1))
    patches_of(tmp_path / "run", path)
    stat = path.stat()
    write(path, tissue(2))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    with pytest.raises(
        ValueError, match=r"another config \(inputs\.slides.*--config\.force=patches"
    ):
        patches_of(tmp_path / "run", path)
    patches_of(tmp_path / "run", path, ("force", "patches"))
    assert error_to(tissue(2), pixels_by_slide(tmp_path / "run")[0]) < 3


@pytest.mark.parametrize("copy", ["byte for byte", "other metadata", "other compression"])
def test_copies_of_a_slide_are_used_once(tmp_path, copy):
    image = tissue(1)
    first = write(tmp_path / "slides/a.tif", image)
    write(tmp_path / "slides/c.tif", tissue(2))
    twin = tmp_path / "slides/other/b.tif"
    twin.parent.mkdir()
    if copy == "byte for byte":
        shutil.copy(first, twin)
    else:
        more = {"description": "anonymous"} if copy == "other metadata" else {"compression": "zlib"}
        write(twin, image, **more)
    told = patches_of(tmp_path / "run", tmp_path / "slides/**/*.tif")
    assert told.startswith("1 of the files")
    assert quarantine(tmp_path / "run") == {"b.tif": f"the same pixels as {first}, which is used"}


def turned(image):
    return {"copy": image, "mirrored": image[:, ::-1], "turned": np.rot90(image)}


@pytest.mark.parametrize(
    ("how", "by"), [("copy", "case"), ("copy", "area"), ("mirrored", "case"), ("turned", "area")]
)
def test_copies_of_a_patch_are_on_one_side(tmp_path, how, by):
    folder = tmp_path / "patches"
    folder.mkdir()
    whole = tissue(3, 640, 800)
    cut = [whole[y : y + 160, x : x + 160] for y in range(0, 640, 160) for x in range(0, 800, 160)]
    for number, patch in enumerate(cut):
        Image.fromarray(patch).save(folder / f"{number:02d}.png")
        suffix = "bmp" if number % 2 else "png"
        Image.fromarray(turned(patch)[how]).save(folder / f"copy_{number:02d}.{suffix}")
    patches_of(tmp_path / "run", f"folder:{folder}", ("data.mpp", 0.5), ("data.holdout.by", by))
    found = quarantine(tmp_path / "run")
    assert len(found) == len(cut)
    assert found["copy_03.bmp"] == "the same pixels as 03.png, which is used"
    assert sum(facts(tmp_path / "run")["records"].values()) == len(cut)


def test_one_bad_patch_costs_that_patch(tmp_path):
    """Broken in its middle, an animation, of another size, a name that is no UTF-8, and files of
    other kinds."""
    folder = tmp_path / "patches"
    folder.mkdir()
    whole = tissue(3, 640, 800)
    cut = [whole[y : y + 160, x : x + 160] for y in range(0, 640, 160) for x in range(0, 800, 160)]
    for number, patch in enumerate(cut):
        Image.fromarray(patch).save(folder / f"{number:02d}.{'bmp' if number % 2 else 'png'}")
    data = (folder / "04.png").read_bytes()
    (folder / "04.png").write_bytes(data[: len(data) // 2])
    frames = [Image.fromarray(x) for x in cut[:2]]
    frames[0].save(folder / "06.png", save_all=True, append_images=frames[1:])
    Image.fromarray(whole[:100, :160]).save(folder / "08.png")
    os.rename(folder / "10.png", os.fsencode(folder) + b"/caf\xe9.png")
    for name in ("slide.czi", "moving.gif"):
        (folder / name).write_bytes(b"x")
    patches_of(tmp_path / "run", f"folder:{folder}", ("data.mpp", 0.5))
    found = quarantine(tmp_path / "run")
    assert found.keys() == {"04.png", "06.png", "08.png", "slide.czi", "moving.gif"}
    assert "expected one image, got an animation of 2 frames" in found["06.png"]
    assert sum(facts(tmp_path / "run")["records"].values()) == len(cut) - 3


def test_a_patch_replaced_in_place_is_another(tmp_path):
    """Of the same size, in a folder of its class."""
    folder = tmp_path / "patches/tumour"
    folder.mkdir(parents=True)
    for number in range(10):
        Image.fromarray(tissue(number, 160, 160)).save(folder / f"{number}.bmp")
    run = lambda *changes: patches_of(
        tmp_path / "run", f"folder:{folder.parent}", ("data.mpp", 0.5), *changes
    )
    run()
    Image.fromarray(tissue(77, 160, 160)).save(folder / "3.bmp")
    with pytest.raises(ValueError, match=r"--config\.force=patches"):
        run()
    run(("force", "patches"))
    source = records.RecordSource(tmp_path / "run/patches/records", "train")
    assert np.abs(source[3].astype(int) - tissue(77, 160, 160)).mean() < 3


@pytest.fixture
def two(tmp_path):
    """A folder of two good slides."""
    for number in (1, 2):
        write(tmp_path / f"slides/{number}.tif", tissue(number))
    return tmp_path / "slides"


def line(folder):
    write(folder / "line.tif", tissue(8)[:1])


def column(folder):
    write(folder / "column.tif", tissue(8)[:, :3].copy())


def latin(folder):
    write(folder / "other.tif", tissue(5))
    os.rename(folder / "other.tif", os.fsencode(folder) + b"/caf\xe9.tif")


def newline(folder):
    write(folder / "two\nlines.tif", tissue(5))


@pytest.mark.parametrize("bad", [line, column, latin, newline])
def test_one_strange_slide_costs_that_slide(tmp_path, two, bad):
    bad(two)
    patches_of(tmp_path / "run", two)
    names = set(facts(tmp_path / "run")["slides"].values())
    assert {"1.tif", "2.tif"} <= names
    left = names - {"1.tif", "2.tif"} | quarantine(tmp_path / "run").keys()
    assert len(left) == 1
    if bad is latin:
        assert left == {"caf\\xe9.tif"}


def test_slides_without_a_record_are_told(tmp_path, two, caplog):
    write(two / "white.tif", np.full((SIDE, SIDE, 3), 255, np.uint8))
    assert patches_of(tmp_path / "run", two) is None
    assert facts(tmp_path / "run")["without_records"] == ["white.tif"]
    assert "white.tif has no records" in caplog.text


def test_an_error_of_any_kind_costs_the_slide_that_it_met(tmp_path, two, monkeypatch):
    read = slide_lib.LeveledSlide.read_region

    def fails(slide, *args, **kwargs):
        if slide.path.name == "2.tif":
            raise ZeroDivisionError("a decoder's mistake")
        return read(slide, *args, **kwargs)

    monkeypatch.setattr(slide_lib.LeveledSlide, "read_region", fails)
    patches_of(tmp_path / "run", two)
    assert quarantine(tmp_path / "run") == {"2.tif": "a decoder's mistake"}


def test_a_slide_whose_region_cannot_be_read_is_left_out(tmp_path, two, monkeypatch):
    """It fell to pieces after it was tiled."""
    patches_of(tmp_path / "run", two)
    region = json.loads((tmp_path / "run/patches/regions.json").read_text())[0]
    read = slide_lib.LeveledSlide.read_region

    def fails(slide, *args, **kwargs):
        if slide.path.name == region["slide_name"]:
            raise slide_lib.SlideError("gone")
        return read(slide, *args, **kwargs)

    monkeypatch.setattr(slide_lib.LeveledSlide, "read_region", fails)
    patches_of(tmp_path / "run", two, ("force", "patches"))
    assert quarantine(tmp_path / "run") == {region["slide_name"]: "gone"}
    other = json.loads((tmp_path / "run/patches/regions.json").read_text())[0]
    assert other["slide_name"] != region["slide_name"]


def embed(patches):
    return patches.reshape(-1, 4, 16, 4, 16, 3).mean((2, 4)).reshape(len(patches), -1)


def with_features(folder, name, image, mpp=0.5, *, unit=None, **attributes):
    """A slide and features of its patches of 32 µm."""
    write(folder / f"slides/{name}.tif", image, mpp)
    px = round(PX * 0.5 / mpp)
    places = range(PX, SIDE - 2 * PX, px)
    corners = np.random.default_rng(0).permutation([(x, y) for y in places for x in places])
    step = px // PX
    cut = np.stack([image[y : y + px : step, x : x + px : step] for x, y in corners])
    (folder / "h5").mkdir(exist_ok=True)
    with h5py.File(folder / f"h5/{name}.h5", "w") as file:
        file["coords"] = corners * mpp if unit else corners
        file["feats"] = embed(cut).astype(np.float32)
        if unit:
            file.attrs.update({"unit": unit, "tile_size_um": 32.0})
        else:
            file["coords"].attrs.update({"patch_size": PX, "patch_size_level0": px} | attributes)
    return folder / f"h5/{name}.h5"


FEATURES = (
    ("data.records.record_px", PX + 2 * CONTEXT), ("data.crops.dihedral", False),
    ("data.crops.num_crops", 0), ("encoder.model.shift_px", 0),
    ("autoencoder.loss.perceptual_weight", 0.0), ("sample.conditioning", "interpolated"),
)  # fmt: skip


def features_of(tmp_path, *changes):
    source = ("embeddings.source", str(tmp_path / "h5"))
    return patches_of(tmp_path / "run", tmp_path / "slides", source, *FEATURES, *changes, base=tiny)


def break_file(path):
    path.write_bytes(path.read_bytes()[:2000])


def not_finite(path):
    with h5py.File(path, "r+") as file:
        file["feats"][-1, 0] = np.nan


def outside(path):
    with h5py.File(path, "r+") as file:
        file["coords"][...] = file["coords"][...] * 3


def other_length(path):
    with h5py.File(path, "r+") as file:
        values = file["feats"][...][:, :-1]
        del file["feats"]
        file["feats"] = values


def in_furlongs(path):
    with h5py.File(path, "r+") as file:
        file.attrs["unit"] = "furlong"


def missing(path):
    path.unlink()


def by_magnification(path):
    with h5py.File(path, "r+") as file:
        file["coords"].attrs["patch_size_level0"] = 66


HARMS = {
    break_file: "expected embeddings, got",
    not_finite: "must be finite, got NaN",
    outside: "must lie inside 3.tif",
    other_length: "must have 48 dimensions as most have, got 47",
    in_furlongs: "must be in px or um, got unit='furlong'",
    missing: "got none for 6.tif",
    by_magnification: "patches must have 64 px",
}


@pytest.mark.parametrize("check", ["pixels", "none"])
def test_bad_features_cost_their_slide(tmp_path, check):
    for number in range(len(HARMS) + 2):
        path = with_features(tmp_path, str(number + 1), tissue(number))
        if number < len(HARMS):
            list(HARMS)[number](path)
    told = features_of(tmp_path, ("embeddings.check", check))
    assert told.startswith(f"{len(HARMS)} of the files")
    found = quarantine(tmp_path / "run")
    assert found.keys() == {f"{number + 1}.tif" for number in range(len(HARMS))}
    for number, reason in enumerate(HARMS.values(), 1):
        assert reason in found[f"{number}.tif"]


def test_features_that_changed_places_are_others(tmp_path):
    """Of one size and time, as a renaming leaves them."""
    paths = [with_features(tmp_path, name, tissue(int(name))) for name in ("1", "2")]
    features_of(tmp_path)
    os.rename(paths[0], tmp_path / "aside")
    os.rename(paths[1], paths[0])
    os.rename(tmp_path / "aside", paths[1])
    with pytest.raises(ValueError, match=r"inputs\.embeddings"):
        features_of(tmp_path)


def test_slides_that_share_the_name_of_their_features_are_left_out(tmp_path):
    for name in ("1", "2"):
        with_features(tmp_path, name, tissue(int(name)))
    write(tmp_path / "slides/2.tiff", tissue(4))
    features_of(tmp_path)
    found = quarantine(tmp_path / "run")
    assert found.keys() == {"2.tif", "2.tiff"}
    assert "must have names of their own" in found["2.tif"]


@pytest.mark.parametrize(("unit", "mpp"), [("um", 0.5), ("µm", 0.25)])
def test_coords_in_microns_are_taken_in_microns(tmp_path, unit, mpp):
    """As STAMP writes them."""
    image = tissue(1)
    with_features(tmp_path, "1", image, mpp, unit=unit)
    features_of(tmp_path)
    cut = pixels_by_slide(tmp_path / "run")[0]
    tops = {top + CONTEXT for (top, _), _ in cut}
    assert all(top % (PX if mpp == 0.5 else PX // 2) == 0 for top in tops)
    if mpp == 0.5:
        inner = [((top + CONTEXT, left + CONTEXT), x[CONTEXT:-CONTEXT, CONTEXT:-CONTEXT])
                 for (top, left), x in cut]  # fmt: skip
        assert error_to(image, inner) < 3


def test_a_folder_of_patches_knows_what_it_leaves_out(tmp_path):
    Image.fromarray(tissue(1, 64, 64)).save(tmp_path / "a.png")
    for name in ("b.bmp", "c.svs", "notes.txt", "d.GIF"):
        (tmp_path / name).write_bytes(b"x")
    found = patch_list.open_list(f"folder:{tmp_path}")
    assert [found.name(i) for i in range(len(found))] == ["a.png", "b.bmp"]
    assert found.left_out == ["c.svs", "d.GIF"]


BAD_NAMES = {
    "missing": "none.png", "null": "a\0b.png", "null in tiff": "a\0b.tif", "long": "x" * 300,
    "empty": "", "ring": "ring.png", "folder": "folder.png", "pipe": "pipe.png",
    "pipe in tiff": "pipe.tif", "no bytes": "no.png",
}  # fmt: skip


@pytest.mark.parametrize("first", [True, False], ids=["first", "last"])
@pytest.mark.parametrize("bad", BAD_NAMES)
def test_one_bad_name_of_a_list_costs_that_patch(tmp_path, bad, first):
    """Wherever it stands; a pipe that nothing writes to is not waited for."""
    (tmp_path / "ring.png").symlink_to("ring.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "no.png").touch()
    for suffix in ("png", "tif"):
        os.mkfifo(tmp_path / f"pipe.{suffix}")
    names = [f"{number}.png" for number in range(3)]
    for number, name in enumerate(names):
        Image.fromarray(tissue(number, 64, 64)).save(tmp_path / name)
    at = 0 if first else 3
    names.insert(at, BAD_NAMES[bad])
    np.save(tmp_path / "list.npy", np.array(names, object), allow_pickle=True)
    patches = patch_list.open_list(str(tmp_path / "list.npy"))
    assert patches.fingerprint()
    for number in range(4):
        if number != at:
            assert patches.shape(number) == (64, 64)
            assert patches.read(number).shape == (64, 64, 3)
            continue
        for look in (patches.shape, patches.read):
            with pytest.raises(patch_list.PatchListError, match="expected an image"):
                look(number)


def test_a_list_that_is_one_name_is_one_line(tmp_path):
    np.save(tmp_path / "one.npy", np.str_("0.png"))
    with pytest.raises(patch_list.PatchListError, match="expected patches as uint8"):
        patch_list.open_list(str(tmp_path / "one.npy"))
