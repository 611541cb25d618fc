"""Polygons and masks behind addresses: the same as those of this machine."""

import gzip
import json
import types

import failing_bucket
import fsspec
import numpy as np
import pytest
import small_configs
from PIL import Image

from ssldiff_jax.core import schema
from ssldiff_jax.data import slide_source
from ssldiff_jax.data.annotations import places
from ssldiff_jax.generation import areas
from ssldiff_jax.slides import attempts, geojson, marked
from ssldiff_jax.slides import slide as slides
from ssldiff_jax.slides.protocol import SlideError

BOX = (96, 64, 288, 256)  # of 512 px: an area of 192²
TISSUE = small_configs.section("data.tissue", mpp=4.0)


def polygon(name="Tumor"):
    left, top, right, bottom = BOX
    ring = [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]
    feature = {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]},
               "properties": {"classification": {"name": name}}}  # fmt: skip
    return json.dumps([feature]).encode()


@pytest.fixture
def slide():
    return slides.slide_of("a.png", np.full((512, 512, 3), 245, np.uint8), mpp=0.5)


@pytest.fixture
def bucket(tmp_path):
    """A folder of a bucket: what it holds as files, and their addresses, in memory and by HTTP."""
    mask = np.zeros((64, 64), np.uint8)
    mask[16:48, 8:40] = 255
    Image.fromarray(mask).save(tmp_path / "c.png")
    files = {"a.geojson": polygon(), "b.geojson.gz": gzip.compress(polygon()),
             "c.png": (tmp_path / "c.png").read_bytes(), "notes.txt": b"none"}  # fmt: skip
    memory = fsspec.filesystem("memory")
    with failing_bucket.serving(ranges=True, tags=True) as server:
        for name, data in files.items():
            (tmp_path / name).write_bytes(data)
            memory.pipe(f"/marks/{name}", data)
            server.files[f"marks/{name}"] = data
        links = "".join(f"<a href='{name}'>{name}</a>" for name in files)
        server.files["marks/"] = links.encode()
        yield types.SimpleNamespace(
            folder=tmp_path, server=server, places=["memory:///marks", server.address("marks/")]
        )
    memory.rm("/marks", recursive=True)
    slide_source.query_again()


def section(**changes):
    return small_configs.section("data.annotations", **changes)


@pytest.mark.parametrize("where", [0, 1])
@pytest.mark.parametrize("glob", ["", "/*", "/a.geojson"])
def test_files_are_found_by_the_slides_names(bucket, where, glob):
    if where and glob == "/*":
        pytest.skip("a list of links is no glob")
    place = bucket.places[where].rstrip("/")
    spec = place + (glob or "/" * where)
    marks = section(files=spec, leave_out=("F",)).of_slides(["a.svs", "b.tif", "z.svs"])
    found = [m and m.regions for m in marks]
    assert found == [f"{place}/a.geojson", None if glob == "/a.geojson" else
                     f"{place}/b.geojson.gz", None]  # fmt: skip
    masks = section(masks=f"{place}/" if where else place).of_slides(["c.svs"])
    assert masks[0].mask == f"{place}/c.png"


@pytest.mark.parametrize("where", [0, 1])
@pytest.mark.parametrize("name", ["a.geojson", "b.geojson.gz", "c.png"])
def test_they_say_what_they_say_here(bucket, slide, where, name):
    """The polygon's area in closed form; the mask's a quarter; and digests of the content."""
    address, near = f"{bucket.places[where].rstrip('/')}/{name}", str(bucket.folder / name)
    kind, more = ("mask", {}) if name == "c.png" else ("regions", {"use": ("Tumor",)})
    far, here = (marked.Marks(**{kind: path}, **more) for path in (address, near))
    assert far.fingerprint() == here.fingerprint()
    mask = marked.examine(slide, TISSUE, far).mask
    expected = 1 / 4 if name == "c.png" else 192**2 / 512**2
    assert mask.fraction(0, 0, 512, 512, mpp=0.5) == pytest.approx(expected, rel=1e-6)
    np.testing.assert_array_equal(mask.shares, marked.examine(slide, TISSUE, here).mask.shares)


def test_what_changed_in_a_bucket_is_another_after_it_is_asked_again(bucket):
    marks = marked.Marks("memory://marks/a.geojson", use=("Tumor",))
    first = marks.fingerprint()
    fsspec.filesystem("memory").pipe("/marks/a.geojson", polygon("Fold"))
    assert marks.fingerprint() == first  # a command asks once
    slide_source.query_again()
    assert marks.fingerprint() != first


def test_bad_files_are_named_by_their_addresses(bucket, slide, tmp_path):
    memory = fsspec.filesystem("memory")
    memory.pipe("/marks/bad.geojson", b"{")
    memory.pipe("/marks/bad.png", b"no image")
    for marks, message in (
        (marked.Marks("memory://marks/bad.geojson", use=("*",)),
         "GeoJSON, got memory://marks/bad.geojson"),
        (marked.Marks("memory://marks/none.geojson", use=("*",)),
         "GeoJSON file, got memory://marks/none.geojson: no such file"),
        (marked.Marks("memory://marks/a.geojson", use=("Tumour",)),
         "in memory://marks/a.geojson, got 'Tumor' (1)"),
        (marked.Marks(mask="memory://marks/bad.png"), "mask image, got memory://marks/bad.png"),
        (marked.Marks(mask="memory://marks/none.png"), "memory://marks/none.png"),
    ):  # fmt: skip
        with pytest.raises(SlideError) as caught:
            marked.examine(slide, TISSUE, marks)
        assert message in str(caught.value)
        assert "slide-" not in str(caught.value)
        assert "\n" not in str(caught.value)
    assert marked.Marks("memory://marks/none.geojson").fingerprint()[0] == "missing"


def test_a_server_that_fails_for_a_while_is_asked_again(bucket, slide, monkeypatch):
    monkeypatch.setattr(attempts, "WAITS", (0.0, 0.0))
    address = bucket.server.address("marks/a.geojson")
    bucket.server.faults["marks/a.geojson"] = [503]
    assert len(geojson.read(address).features) == 1
    bucket.server.faults["marks/a.geojson"] = [503] * 100
    with pytest.raises(SlideError, match=f"got {address}: .*503"):
        geojson.read(address)


def test_folders_that_are_not_there_are_one_line(bucket):
    for files in ("memory://nothing", bucket.server.address("nothing/"), "nosuch://x/y"):
        places.query_again()
        with pytest.raises(schema.ConfigError, match=r"config\.data\.annotations\.files") as caught:
            section(files=files, use=("*",)).of_slides(["a.svs"])
        assert files in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_table_names_addresses(bucket):
    (bucket.folder / "slides").mkdir()
    for name in "ab":
        Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(bucket.folder / f"slides/{name}.png")
    table = bucket.folder / "table.csv"
    table.write_text("slide,annotations,mask\na.png,memory://marks/a.geojson,\n"
                     f"b.png,,{bucket.server.address('marks/c.png')}\n")  # fmt: skip
    annotations = section(use=("Tumor",)).__dict__
    data = small_configs.section("data", slides=str(table), folder=str(bucket.folder / "slides"),
                                 mpp=0.5, annotations=annotations)  # fmt: skip
    first, second = slide_source.marks_of(data).values()
    assert first.regions == "memory://marks/a.geojson"
    assert second.mask == bucket.server.address("marks/c.png")
    task = next(iter(slide_source.tasks(data, bucket.folder)))
    assert task.asked("", "")[-2:] == ["memory://marks/a.geojson", ""]
    (near, _), (far, _) = (
        [task.folder.name for task in slide_source.tasks(data, bucket.folder)]
        for _ in (table.write_text(table.read_text().replace("memory://marks/", "")), 0)
    )
    assert near == far


def test_a_region_of_a_reference(bucket):
    assert areas.file_of("memory://marks/a.geojson#Tumor") == "memory://marks/a.geojson"
    signed = bucket.server.address("marks/a.geojson?X-Sig=1&b=2")
    assert geojson.split_name(f"{signed}#Tumor") == (signed, "Tumor")
    assert areas.words_of(f"{signed}#Tumor") == "a Tumor"
