"""Scenes that STAC files list: items, collections and lists of items, here and behind addresses."""

import json
import logging

import failing_bucket
import numpy as np
import pytest
import rasterio

from configs import tiny
from ssldiff_jax.core import schema
from ssldiff_jax.data import config as data_config
from ssldiff_jax.data import named_slides, slide_source
from ssldiff_jax.slides import SlideError, attempts

COG = "image/tiff; application=geotiff; profile=cloud-optimized"


def data(slides, **changes):
    values = tiny.get_config().data.to_dict() | {"slides": str(slides), "patch_metres": 1.0}
    return schema.build(data_config.DataConfig, values | changes, "config.data")


def asset(href, kind=COG):
    return {"href": href} | ({"type": kind} if kind else {})


def item(name="one", self_link=None, **assets):
    links = [{"rel": "self", "href": self_link}] if self_link else []
    return {
        "type": "Feature", "stac_version": "1.0.0", "id": name, "geometry": None,
        "properties": {"datetime": "2020-01-01T00:00:00Z"}, "links": links, "assets": assets,
    }  # fmt: skip


@pytest.fixture
def write(tmp_path):
    def write(name, values):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(values if isinstance(values, str) else json.dumps(values))
        return path

    return write


def refused(call):
    with pytest.raises(SlideError) as caught:
        call()
    (line,) = str(caught.value).splitlines()
    return line


THUMBNAIL = asset("small.png", "image/png")
METADATA = asset("about.xml", "application/xml")


@pytest.mark.parametrize(
    ("assets", "asked", "taken"),
    [
        ({"visual": asset("v.tif"), "image": asset("i.tif"), "data": asset("d.tif")}, "", "v.tif"),
        ({"image": asset("i.tif"), "data": asset("d.tif")}, "", "i.tif"),
        ({"data": asset("d.tif"), "B04": asset("r.tif"), "B03": asset("g.tif")}, "", "d.tif"),
        ({"thumbnail": THUMBNAIL, "cog": asset("c.tif"), "metadata": METADATA}, "", "c.tif"),
        # A file that says no type is known by its name.
        ({"cog": asset("c.TIFF", None), "about": asset("about.json", None)}, "", "c.TIFF"),
        ({"data": METADATA, "scene": asset("s.tif")}, "", "s.tif"),
        ({"visual": asset("v.tif"), "B04": asset("r.tif")}, "B04", "r.tif"),
        ({"visual": asset("v.tif"), "thumbnail": THUMBNAIL}, "thumbnail", "small.png"),
    ],
)
def test_an_asset_is_a_slide(write, tmp_path, assets, asked, taken):
    path = write("items/one.json", item(**assets))
    assert named_slides.sources(data(path, asset=asked)) == [str(tmp_path / "items" / taken)]


@pytest.mark.parametrize(
    ("assets", "asked", "message"),
    [
        ({"thumbnail": THUMBNAIL, "metadata": METADATA}, "",
         "(visual, image, data or one GeoTIFF), got thumbnail (image/png), metadata (applica"),
        ({"B04": asset("r.tif"), "B03": asset("g.tif")}, "", "got B04 (image/tiff; application"),
        ({}, "", "got no assets in item 'one' of"),
        ({"visual": asset("v.tif")}, "B04", "(B04), got visual (image/tiff"),
        ({"a\nb": asset("c\nd.xml", "e\nf")}, "", "got a b (e f) in item 'one'"),
        ({f"B{n}": asset(f"{n}.tif") for n in range(20)}, "", ", 8 more in item 'one'"),
        ({"B04": METADATA}, "B04", "(B04), got B04 (application/xml)"),
        # The folder itself, and what no path holds.
        ({"visual": asset("")}, "", "got visual (image/tiff"),
        ({"visual": asset("a\0b.tif")}, "", "got visual (image/tiff"),
    ],
)  # fmt: skip
def test_an_item_without_a_raster_is_refused(write, assets, asked, message):
    path = write("one.json", item(**assets))
    line = refused(lambda: named_slides.sources(data(path, asset=asked)))
    assert line.startswith("expected an asset that is a raster")
    assert message in line
    assert str(path) in line
    assert "config.data.asset" in line


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "expected a STAC file, got"),
        ("[1]", "a list"),
        ("[" * 100_000, "expected a STAC file, got"),
        ({"type": "Feature", "properties": {}}, "type 'Feature' without stac_version"),
        ({"type": "FeatureCollection", "features": [{"type": "Feature"}]}, "feature 0 has no stac"),
        ({"type": "FeatureCollection", "features": []}, "with items, got none"),
        ({"type": "Catalog", "stac_version": "1.0.0", "links": []}, "with items, got none"),
        ({"type": "Catalog", "stac_version": "1.0.0", "links": 5}, "with items, got none"),
        ({"type": "FeatureCollection", "features": None}, "with items, got none"),
        (item() | {"links": None, "assets": 7}, "got no assets in item 'one'"),
        ({"stages": "patches"}, "expected a STAC item, collection, catalog or list of items"),
    ],
)
def test_what_is_no_stac_is_refused_in_one_line(write, text, message):
    path = write("one.json", text)
    line = refused(lambda: named_slides.sources(data(path)))
    assert message in line
    assert str(path) in line


def test_a_file_that_is_not_there_is_refused(tmp_path):
    line = refused(lambda: named_slides.sources(data(tmp_path / "absent.json")))
    assert (
        line == f"expected a STAC file, got {tmp_path / 'absent.json'}: No such file or directory"
    )


def test_a_collection_is_followed_to_its_items(write, tmp_path):
    """Through catalogs inside, once each, whatever they link to."""
    links = lambda **by: [{"rel": rel, "href": href} for rel, href in by.items()]
    write("a/one/one.json", item("one", visual=asset("./one.tif")))
    write("a/two.json", item("two", data=asset("../shared/two.tif")))
    write("a/catalog.json", {
        "type": "Catalog", "stac_version": "1.0.0", "id": "a",
        "links": [*links(item="./two.json", root="../all.json"), *links(child="../all.json")],
    })  # fmt: skip
    path = write("all.json", {
        "type": "Collection", "stac_version": "1.1.0", "id": "all",
        "links": [*links(item="a/one/one.json"), *links(child="./a/catalog.json")],
    })  # fmt: skip
    assert named_slides.sources(data(path)) == [
        str(tmp_path / "a/one/one.tif"), str(tmp_path / "shared/two.tif")
    ]  # fmt: skip


def test_a_list_of_items_beside_other_slides(write, tmp_path, caplog):
    """One that has no raster is named, and left out; a scene that is named twice is one."""
    (tmp_path / "three.tif").write_bytes(b"x")
    features = [
        item("one", visual=asset("one.tif")),
        item("none", thumbnail=THUMBNAIL),
        item("two", self_link=str(tmp_path / "far" / "two.json"), visual=asset("two.tif")),
        item("three", visual=asset("./three.tif")),
    ]
    path = write("found.geojson", {"type": "FeatureCollection", "features": features})
    with caplog.at_level(logging.WARNING, "ssldiff_jax"):
        found = named_slides.sources(data(f"{tmp_path}/*.tif, {path}"))
        # A command looks several times, and says it once.
        assert named_slides.sources(data(f"{tmp_path}/*.tif, {path}")) == found
    assert found == [str(tmp_path / name) for name in ("three.tif", "one.tif", "far/two.tif")]
    assert caplog.text.count("left out: expected an asset that is a raster") == 1
    assert "item 'none'" in caplog.text


def test_globs_of_items(write, tmp_path):
    for name in ("b", "a"):
        write(f"items/{name}.json", item(name, visual=asset(f"{name}.tif")))
    assert named_slides.sources(data(tmp_path / "items" / "*.json")) == [
        str(tmp_path / "items" / f"{name}.tif") for name in "ab"
    ]


def test_a_name_is_read_as_an_address_has_it(write, tmp_path):
    (tmp_path / "my scene.tif").write_bytes(b"x")
    path = write("one.json", item(visual=asset("./my%20scene.tif")))
    assert named_slides.sources(data(path)) == [str(tmp_path / "my scene.tif")]
    path = write("two.json", item(visual=asset(f"file://{tmp_path}/my%20scene.tif")))
    assert named_slides.sources(data(path)) == [str(tmp_path / "my scene.tif")]


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    pytest.importorskip("aiohttp")
    monkeypatch.setattr(attempts, "WAITS", ())
    profile = {
        "driver": "GTiff", "height": 200, "width": 220, "count": 3, "dtype": "uint8",
        "crs": "EPSG:32614", "transform": rasterio.Affine(1, 0, 5e5, 0, -1, 5.2e6),
    }  # fmt: skip
    with rasterio.open(tmp_path / "scene.tif", "w", **profile) as file:
        file.write(np.random.default_rng(0).integers(0, 256, (3, 200, 220), np.uint8))
    with failing_bucket.serving(ranges=True, tags=True) as server:
        server.files["scenes/good.tif"] = (tmp_path / "scene.tif").read_bytes()
        server.files["scenes/good.tif?sig=secret"] = server.files["scenes/good.tif"]
        server.files["items/good.json"] = json.dumps(
            item("good", visual=asset("../scenes/good.tif"))
        ).encode()
        slide_source.query_again()
        yield server


def test_links_of_an_address_start_from_it(bucket):
    found = named_slides.sources(data(bucket.address("items/good.json")))
    assert found == [bucket.address("scenes/good.tif")]
    for href in ("file:///etc/a.tif", "local:///etc/a.tif", "simplecache::file:///etc/a.tif"):
        bucket.files["items/local.json"] = json.dumps(item(visual=asset(href))).encode()
        slide_source.query_again()
        line = refused(lambda: named_slides.sources(data(bucket.address("items/local.json"))))
        assert "expected an address in http://" in line


def test_what_answers_403_is_told_and_the_others_are_read(bucket, write, tmp_path):
    """A scene and an item: both become slides that cannot be read."""
    bucket.faults["scenes/bad.tif"] = [403] * 100
    bucket.faults["items/bad.json"] = [403] * 100
    listed = {
        "type": "FeatureCollection",
        "features": [
            item("good", visual=asset(f"{bucket.address('scenes/good.tif')}?sig=secret")),
            item("bad", visual=asset(bucket.address("scenes/bad.tif"))),
        ],
    }
    path = write("found.json", listed)
    config = data(f"{path},{bucket.address('items/bad.json')}")
    tasks = slide_source.tasks(config, tmp_path / "archive")
    assert [task.name for task in tasks] == ["good.tif", "bad.tif", "bad.json"]
    slide = tasks[0].open()
    assert slide.mpp == pytest.approx(1e6)
    assert slide.shape == (200, 220)
    slide.close()
    for task in tasks[1:]:
        line = refused(task.open)
        assert "403" in line
        assert bucket.address("") in line


def test_an_item_of_a_catalog_that_cannot_be_had_costs_itself(bucket, write, tmp_path):
    """One that is forbidden and one that is not there stand for themselves among the others."""
    names = ("one.json", "two.json", "three.json")
    links = [{"rel": "item", "href": f"./{name}"} for name in names]
    catalog = {"type": "Catalog", "stac_version": "1.0.0", "id": "a", "links": links}
    bucket.files["catalog.json"] = json.dumps(catalog).encode()
    for name in names[::2]:
        bucket.files[name] = json.dumps(item(name, visual=asset("../scenes/good.tif?" + name)))
        bucket.files[name] = bucket.files[name].encode()
    scenes = [f"{bucket.address('scenes/good.tif')}?{name}" for name in names[::2]]
    for status in (403, 404):
        bucket.faults["two.json"] = [status] * 100 if status == 403 else []
        slide_source.query_again()
        found = named_slides.sources(data(bucket.address("catalog.json")))
        assert found == [scenes[0], bucket.address("two.json"), scenes[1]]
    bucket.faults["two.json"] = [403] * 100
    task = slide_source.tasks(data(bucket.address("catalog.json")), tmp_path / "archive")[1]
    assert bucket.address("two.json") in refused(task.open)
    # Of files of this machine too.
    path = write("catalog.json", catalog)
    write("one.json", item(visual=asset("one.tif")))
    write("three.json", item(visual=asset("three.tif")))
    wanted = [str(tmp_path / name) for name in ("one.tif", "two.json", "three.tif")]
    assert named_slides.sources(data(path)) == wanted
    (task,) = [t for t in slide_source.tasks(data(path), tmp_path / "archive") if "two" in t.name]
    assert "two.json" in refused(task.open)
