"""Tissue that a user marks: the part of every square that polygons cover, against shapely."""

import json
import logging
import pathlib
import types

import numpy as np
import pytest
import shapely
import small_configs
import tifffile
import tissue_like
from PIL import Image

from ssldiff_jax.data import plan, tiling
from ssldiff_jax.slides import geojson, marked, rasterised, tissue
from ssldiff_jax.slides import slide as slides
from ssldiff_jax.slides.protocol import SlideError

TISSUE = small_configs.section("data.tissue")
SIZE = 2048  # px of level 0, at 0.5 µm


def blob(rng, x, y, radius, holes):
    """A star-shaped polygon with round holes, as a pathologist draws."""
    angle = np.sort(rng.uniform(0, 2 * np.pi, 40))
    length = radius * rng.uniform(0.75, 1, 40)
    shell = np.stack([x + length * np.cos(angle), y + length * np.sin(angle)], axis=1)
    shape = shapely.Polygon(shell).buffer(0)
    for _ in range(holes):
        way, far = rng.uniform(0, 2 * np.pi), rng.uniform(0, radius / 2)
        centre = shapely.Point(x + far * np.cos(way), y + far * np.sin(way))
        shape = shape - centre.buffer(radius * rng.uniform(0.05, 0.2))
    return shape


def features(classes):
    """Shapes by class, as features of QuPath."""
    return [
        {
            "type": "Feature",
            "geometry": json.loads(shapely.to_geojson(shape)),
            "properties": {"objectType": "annotation", "classification": {"name": name}},
        }
        for name, shapes in classes.items()
        for shape in shapes
    ]


@pytest.fixture
def slide():
    """Half tissue, left, and half glass."""
    pixels = np.full((SIZE, SIZE, 3), 245, np.uint8)
    pixels[:, : SIZE // 2] = np.tile(tissue_like.pixels(0), (3, 2, 1))[:SIZE, : SIZE // 2]
    return slides.slide_of("slide.png", pixels, mpp=0.5)


@pytest.fixture
def marks(tmp_path):
    def marks(classes, **more):
        path = tmp_path / "slide.geojson"
        path.write_text(json.dumps({"type": "FeatureCollection", "features": features(classes)}))
        return marked.Marks(str(path), **more)

    return marks


@pytest.mark.parametrize("mpp", [2.0, 4.0, 8.0, 11.3])
@pytest.mark.parametrize("seed", range(4))
def test_the_area_that_is_used_is_that_of_the_polygons(slide, marks, mpp, seed):
    rng = np.random.default_rng(seed)
    used = [blob(rng, *rng.uniform(500, 1500, 2), rng.uniform(200, 500), 3) for _ in range(3)]
    away = [blob(rng, *rng.uniform(500, 1500, 2), rng.uniform(60, 150), 1) for _ in range(2)]
    exact = shapely.union_all(used) - shapely.union_all(away)
    config = small_configs.section("data.tissue", mpp=mpp)
    given = marks({"Tumor": used, "Fold": away, "Other": [shapely.box(0, 0, 99, 99)]},
                  use=("Tumor",), leave_out=("Fold",))  # fmt: skip
    mask = marked.examine(slide, config, given).mask
    whole = mask.fraction(0, 0, SIZE, SIZE, mpp=0.5) * SIZE**2
    assert whole == pytest.approx(exact.intersection(shapely.box(0, 0, SIZE, SIZE)).area, rel=0.01)
    # Squares of 128 px at level 0 too, of which hardly a thumbnail pixel of 8 µm is a part.
    tops, lefts = (a.ravel() for a in np.mgrid[0:SIZE:128, 0:SIZE:128])
    fractions = mask.fractions(tops, lefts, (128, 128), 0.5)
    squares = shapely.box(lefts, tops, lefts + 128, tops + 128)
    expected = shapely.area(shapely.intersection(squares, exact)) / 128**2
    # A border's pixel is known by its share alone, wherever in it the border runs.
    assert np.abs(fractions - expected).max() < 0.5 * mpp / 0.5 / 128 + 0.01
    assert np.abs(fractions - expected).mean() < 0.01


BORDERS = [(2048, 2048), (2041, 1998), (1000, 1031), (777, 515), (300, 17), (40, 41), (9, 5)]


def glass(height, width):
    return slides.slide_of("slide.png", np.full((height, width, 3), 245, np.uint8), mpp=0.5)


@pytest.mark.parametrize("mpp", [1.3, 2.0, 3.7, 8.0, 8.5])
@pytest.mark.parametrize("shape", BORDERS)
def test_the_whole_slide_is_covered_up_to_its_border(marks, shape, mpp):
    """Also where thumbnail pixels do not divide the slide, or are larger than it."""
    height, width = shape
    given = marks({"Tumor": [shapely.box(0, 0, width, height)]}, use=("Tumor",))
    config = small_configs.section("data.tissue", mpp=mpp)
    mask = marked.examine(glass(height, width), config, given).mask
    assert mask.fraction(0, 0, height, width, mpp=0.5) == pytest.approx(1, abs=1e-6)
    side = min(height, width, 64)
    for top, left in ((0, width - side), (height - side, 0), (height - side, width - side)):
        part = mask.fraction(top, left, side, side, mpp=0.5)
        assert part == pytest.approx(1, abs=1e-6), (top, left)
    # Beyond the slide there is none: half of a square over its corner and border.
    assert mask.fraction(0, width - side, side, 2 * side, mpp=0.5) == pytest.approx(0.5, abs=1e-6)
    assert mask.fraction(0, width, side, side, mpp=0.5) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("mpp", [2.0, 3.7, 8.0])
@pytest.mark.parametrize("shape", BORDERS[1:5])
@pytest.mark.parametrize("seed", range(2))
def test_polygons_over_the_border_keep_their_area(marks, shape, mpp, seed):
    """Against shapely: the whole slide, and all squares that lie at the right and lower border."""
    rng, (height, width) = np.random.default_rng(seed), shape
    places = [(width, height * rng.random()), (width * rng.random(), height), (width, height)]
    used = [blob(rng, x, y, rng.uniform(0.4, 0.6) * max(shape), 2) for x, y in places]
    away = [blob(rng, width, height / 2, 0.15 * max(shape), 0)]
    whole = shapely.box(0, 0, width, height)
    exact = (shapely.union_all(used) - shapely.union_all(away)).intersection(whole)
    config = small_configs.section("data.tissue", mpp=mpp)
    # As a viewer gives them, which cuts no polygon at the border by more than 64 px.
    near = whole.buffer(60)
    given = marks({"Tumor": [s.intersection(near) for s in used],
                   "Fold": [s.intersection(near) for s in away]},
                  use=("Tumor",), leave_out=("Fold",))  # fmt: skip
    mask = marked.examine(glass(height, width), config, given).mask
    found = mask.fraction(0, 0, height, width, mpp=0.5)
    assert found == pytest.approx(exact.area / whole.area, abs=0.01)
    assert found * whole.area == pytest.approx(exact.area, rel=0.01)
    side = min(height, width, 128)
    corners = [(top, width - side) for top in range(0, height - side + 1, 16)]
    corners += [(height - side, left) for left in range(0, width - side + 1, 16)]
    tops, lefts = np.array(corners).T
    fractions = mask.fractions(tops, lefts, (side, side), 0.5)
    squares = shapely.box(lefts, tops, lefts + side, tops + side)
    expected = shapely.area(shapely.intersection(squares, exact)) / side**2
    assert np.abs(fractions - expected).mean() < 0.01
    # A pixel that a polygon's border crosses is known by its share alone.
    assert np.abs(fractions - expected).max() < 0.25 * mpp / 0.5 / side + 0.01


def test_a_strip_of_tissue_along_the_border_alone(marks):
    """Narrower than a thumbnail pixel, of 16 px: it has its area, and no more."""
    height, width = 519, 521
    strip = shapely.box(width - 9, 0, width, height)
    mask = marked.examine(glass(height, width), TISSUE, marks({"T": [strip]}, use=("*",))).mask
    whole = mask.fraction(0, 0, height, width, mpp=0.5)
    assert whole * height * width == pytest.approx(strip.area, rel=1e-6)
    half = shapely.box(width - 4, 0, width, height)
    mask = marked.examine(glass(height, width), TISSUE, marks({"T": [half]}, use=("*",))).mask
    whole = mask.fraction(0, 0, height, width, mpp=0.5)
    # A pixel of 9 px is looked at in eight columns.
    assert whole * height * width == pytest.approx(half.area, abs=height * 9 / 16)


def test_what_is_left_out_at_the_border(marks, tmp_path):
    """The thumbnail lacks its strip: nothing is found there, and nothing is in its pictures."""
    height, width = 2041, 1998
    tiles = (3, 3, 1)
    pixels = np.tile(tissue_like.pixels(0), tiles)[:height, :width]
    slide = slides.slide_of("slide.png", pixels, mpp=0.5)
    before = tissue.examine(slide, TISSUE)
    given = marks({"Fold": [shapely.box(0, 0, 100, 100)]}, leave_out=("Fold",))
    after = marked.examine(slide, TISSUE, given)
    assert after.kinds.shape == before.kinds.shape
    corner = (height - 512, width - 512, 512, 512)
    assert after.mask.fraction(*corner, mpp=0.5) == pytest.approx(
        before.mask.fraction(*corner, mpp=0.5)
    )
    # Patches computed elsewhere ask what is allowed alone, which is all of it.
    assert after.allowed.fraction(*corner, mpp=0.5) == pytest.approx(1)
    all_of_it = marks({"T": [shapely.box(0, 0, width, height)]}, use=("T",))
    (piece,) = marked.outline(slide, marked.examine(slide, TISSUE, all_of_it).mask)
    assert piece.geometry.equals(shapely.box(0, 0, width, height))


@pytest.mark.parametrize("size", [(2041, 1998), (500, 489), (33, 32)])
def test_masks_reach_the_border_too(tmp_path, size):
    height, width = 2041, 1998
    values = np.zeros(size, np.uint8)
    values[:, size[1] // 2 :] = 1
    Image.fromarray(values).save(tmp_path / "mask.png")
    given = marked.Marks(mask=str(tmp_path / "mask.png"))
    mask = marked.examine(glass(height, width), TISSUE, given).mask
    found = mask.fraction(0, 0, height, width, mpp=0.5)
    assert found == pytest.approx(values.mean(), rel=1e-5)
    assert mask.fraction(height - 64, width - 64, 64, 64, mpp=0.5) == pytest.approx(1, abs=1e-6)


def test_small_polygons_keep_their_area(slide, marks):
    """Of a few thumbnail pixels each, and far from any grid."""
    rng = np.random.default_rng(0)
    dots = [shapely.Point(*rng.uniform(100, 1900, 2)).buffer(rng.uniform(24, 48)) for _ in range(9)]
    mask = marked.examine(slide, TISSUE, marks({"Tumor": dots}, use=("*",))).mask
    found = mask.fraction(0, 0, SIZE, SIZE, mpp=0.5) * SIZE**2
    assert found == pytest.approx(shapely.union_all(dots).area, rel=0.01)


def test_found_tissue_without_what_is_left_out(slide, marks):
    away = shapely.box(300, 400, 811, 1203)
    before = tissue.examine(slide, TISSUE)
    after = marked.examine(slide, TISSUE, marks({"Fold": [away]}, leave_out=("Fold",)))
    assert after.mask.fraction(410, 310, 700, 450, mpp=0.5) == 0
    lost = (before.mask.mask.sum() - after.mask.shares.sum()) * 16**2
    found = shapely.union_all(rasterised.outlines(before.mask.mask, 16))
    assert lost == pytest.approx(found.intersection(away).area, rel=0.01)
    assert after.parts["tissue"] < before.parts["tissue"]
    assert sum(after.parts.values()) == pytest.approx(1)


def test_without_marks_all_is_as_it_was(slide):
    before, after = tissue.examine(slide, TISSUE), marked.examine(slide, TISSUE, marked.Marks())
    np.testing.assert_array_equal(before.mask.mask, after.mask.mask)
    assert after.mask.shares is None


def test_polygons_that_are_labels_alone_change_nothing(slide, marks):
    given = marks({"Tumor": [shapely.box(300, 400, 811, 1203)]})
    assert marked.examine(slide, TISSUE, given).mask.shares is None


def test_patches_that_are_known_are_kept_where_marks_allow(slide, marks):
    """The right half is glass: that no tissue is found there is no matter."""
    given = marks({"Fold": [shapely.box(0, 0, 2048, 1024)]}, leave_out=("Fold",))
    examined = marked.examine(slide, TISSUE, given)
    cells = [plan.Square(0, top, 1500, 256, 256, row) for row, top in enumerate((0, 1000, 1400))]
    config = types.SimpleNamespace(records=types.SimpleNamespace(min_tissue=0.5), patch_mpp=0.5)
    kept = tiling.of_marks({"train": cells}, examined.allowed, config)
    assert [cell.row for cell in kept["train"]] == [1, 2]
    assert examined.mask.fraction(1400, 1500, 256, 256, mpp=0.5) == 0
    assert tiling.of_marks({"train": cells}, None, config)["train"] == cells


def test_a_class_that_is_not_there_is_named_beside_those_that_are(slide, marks):
    given = marks({"Tumor": [shapely.box(0, 0, 9, 9)] * 2, "Fold": [shapely.box(9, 9, 20, 20)]},
                  use=("Tumour",))  # fmt: skip
    with pytest.raises(SlideError, match=r"of class 'Tumour' on slide.png in .*slide.geojson, got "
                       r"'Tumor' \(2\), 'Fold' \(1\)"):  # fmt: skip
        marked.examine(slide, TISSUE, given)


@pytest.mark.parametrize("suffix", ["png", "tif", "palette", "alpha", "16", "1"])
@pytest.mark.parametrize("size", [(2048, 2048), (512, 512), (300, 299), (37, 37)])
def test_a_mask_image_of_any_size(tmp_path, slide, suffix, size):
    """Against the exact area of its pixels, spread over the slide."""
    rng = np.random.default_rng(1)
    values = np.kron(rng.random((6, 6)) < 0.5, np.ones((400, 400), bool))[: size[0], : size[1]]
    path = tmp_path / f"mask.{'tif' if suffix in ('tif', '16') else 'png'}"
    if suffix in ("tif", "16"):
        kind = np.uint8 if suffix == "tif" else np.uint16
        tifffile.imwrite(path, values.astype(kind), compression="zlib")
    elif suffix == "palette":
        picture = Image.fromarray((1 - values).astype(np.uint8), "P")
        picture.putpalette([255, 0, 0, 0, 0, 0])  # 0 is red, 1 is black
        picture.save(path)
    elif suffix == "alpha":
        full = np.full_like(values, 255, np.uint8)
        Image.fromarray(np.stack([values * np.uint8(200), full], -1), "LA").save(path)
    elif suffix == "1":
        Image.fromarray(values).save(path)
    else:
        Image.fromarray(values.astype(np.uint8)).save(path)
    mask = marked.examine(slide, TISSUE, marked.Marks(mask=str(path))).mask
    found = mask.fraction(0, 0, SIZE, SIZE, mpp=0.5)
    assert found == pytest.approx(values.mean(), rel=1e-5)
    ys, xs = (np.linspace(0, SIZE, n + 1) for n in size)
    boxes = [
        shapely.box(xs[x], ys[y], xs[x + 1], ys[y + 1])
        for y, x in np.argwhere(values[:40, :40])
        if size[0] == 37
    ]
    if boxes:
        square = shapely.box(900, 500, 1412, 1012)
        expected = shapely.union_all(boxes).intersection(square).area / square.area
        # A mask's pixel is 55 px, a thumbnail's 16.
        assert mask.fraction(500, 900, 512, 512, mpp=0.5) == pytest.approx(expected, abs=0.01)


def test_a_mask_is_read_by_strips(tmp_path, slide, monkeypatch):
    values = np.random.default_rng(2).random((333, 333)) < 0.4
    Image.fromarray(values).save(tmp_path / "mask.png")
    given = marked.Marks(mask=str(tmp_path / "mask.png"))
    whole = marked.examine(slide, TISSUE, given).mask.shares
    monkeypatch.setattr(marked, "_STRIP", 3000)
    monkeypatch.setattr(rasterised, "_STRIP", 3000)
    np.testing.assert_allclose(marked.examine(slide, TISSUE, given).mask.shares, whole, atol=1e-6)


def test_polygons_are_covered_by_strips_as_at_once(slide, marks, monkeypatch):
    rng = np.random.default_rng(3)
    given = marks({"Tumor": [blob(rng, 900, 900, 500, 4)]}, use=("Tumor",))
    whole = marked.examine(slide, TISSUE, given).mask.shares
    monkeypatch.setattr(rasterised, "_STRIP", 3000)
    np.testing.assert_array_equal(marked.examine(slide, TISSUE, given).mask.shares, whole)


def test_both_a_mask_and_polygons_must_say_tissue(tmp_path, slide, marks):
    left = np.zeros((64, 64), np.uint8)
    left[:, :32] = 255
    Image.fromarray(left).save(tmp_path / "mask.png")
    given = marks({"Tumor": [shapely.box(512, 512, 1536, 1536)]}, use=("Tumor",),
                  mask=str(tmp_path / "mask.png"))  # fmt: skip
    found = marked.examine(slide, TISSUE, given).mask.fraction(0, 0, SIZE, SIZE, mpp=0.5)
    assert found * SIZE**2 == pytest.approx(512 * 1024, rel=1e-6)


@pytest.mark.parametrize(
    ("shape", "message"),
    [((64, 128), r"form of its slide \(2048 × 2048 px\), got 128 × 64 px in .*mask.png"),
     (None, "a mask image, got .*mask.png")],
)  # fmt: skip
def test_bad_masks(tmp_path, slide, shape, message):
    path = tmp_path / "mask.png"
    if shape:
        Image.fromarray(np.ones(shape, np.uint8)).save(path)
    else:
        path.write_text("no image")
    with pytest.raises(SlideError, match=message) as caught:
        marked.examine(slide, TISSUE, marked.Marks(mask=str(path)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("mpp", [4.0, 8.0, 11.3])
def test_tissue_that_is_written_reads_back(tmp_path, slide, mpp, caplog):
    config = small_configs.section("data.tissue", mpp=mpp, smooth_radius_um=0.0)
    found = tissue.examine(slide, config).mask
    assert 0.2 < found.mask.mean() < 0.6
    # Holes, islands in them, and pixels that touch at a corner.
    rng = np.random.default_rng(4)
    noise = rng.random(found.mask.shape) < 0.03
    found = tissue.TissueMask(found.mask ^ noise, found.mpp)
    path = tmp_path / "slide.geojson"
    geojson.write(path, marked.outline(slide, found), about="slide")
    with caplog.at_level(logging.WARNING):
        regions = geojson.read(path)
    assert not caplog.messages  # valid as they are
    assert set(regions.counts) == {"Tissue"}
    again = marked.examine(slide, config, marked.Marks(str(path), use=("Tissue",))).mask
    # The thumbnail lacks a part of a pixel at the border, where nothing was found.
    height, width = found.mask.shape
    same = again.mask[:height, :width]
    assert same.sum() == again.mask.sum()
    both, either = same & found.mask, same | found.mask
    assert both.sum() / either.sum() >= 0.99
    area = sum(f.geometry.area for f in regions.features)
    assert area == pytest.approx(found.mask.sum() * slide.downsample(mpp) ** 2, rel=1e-4)


def test_fingerprints_are_of_content(tmp_path, marks):
    given = marks({"Tumor": [shapely.box(0, 0, 9, 9)]}, use=("Tumor",))
    first = given.fingerprint()
    copy = tmp_path / "other.geojson"
    copy.write_bytes(pathlib.Path(given.regions).read_bytes())
    assert marked.Marks(str(copy), use=("Tumor",)).fingerprint() == first
    assert marked.Marks(str(copy), leave_out=("Tumor",)).fingerprint() != first
    copy.write_text(copy.read_text().replace("9.0", "8.0"))
    assert marked.Marks(str(copy), use=("Tumor",)).fingerprint() != first
