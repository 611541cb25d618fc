"""What a slide is known by, and which files are one slide."""

import io
import os
import struct

import fsspec
import numpy as np
import pytest
import rasterio
import rasterio.shutil
from PIL import Image

from ssldiff_jax import slides
from ssldiff_jax.generation import user_images
from ssldiff_jax.slides import content, dicom, remote

EXPLICIT, IMPLICIT, BIG = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"


def element(group, number, kind, value, *, order="<", is_explicit=True, endless=False):
    """One element as DICOM PS3.5, 7.1 has it."""
    value += b"\0" * (len(value) % 2)
    tag = struct.pack(f"{order}HH", group, number)
    length = 0xFFFFFFFF if endless else len(value)
    if not is_explicit:
        return tag + struct.pack(f"{order}I", length) + value
    if kind in (b"SQ", b"OB"):
        return tag + kind + b"\0\0" + struct.pack(f"{order}I", length) + value
    return tag + kind + struct.pack(f"{order}H", length) + value


def instance(uid, syntax=EXPLICIT, filler=b"x", endless=False):
    """The head of a file of a series, with a sequence before what tells it."""
    how = {"order": ">" if syntax == BIG else "<", "is_explicit": syntax != IMPLICIT}
    meta = element(2, 1, b"OB", b"\0\1") + element(2, 16, b"UI", syntax.encode())
    meta = element(2, 0, b"UL", struct.pack("<I", len(meta))) + meta
    inner = element(8, 0x1155, b"UI", b"9.9", **how)
    item = struct.pack(how["order"] + "HHI", 0xFFFE, 0xE000, 0xFFFFFFFF if endless else len(inner))
    ends = [struct.pack(how["order"] + "HHI", 0xFFFE, n, 0) for n in (0xE00D, 0xE0DD)]
    items = item + inner + b"".join(ends if endless else [])
    body = (
        element(8, 0x16, b"UI", b"1.2", **how)
        + element(8, 0x1115, b"SQ", items, endless=endless, **how)
        + element(0x10, 0x10, b"PN", b"Nobody", **how)
        + element(0x20, 0xD, b"UI", b"5.5", **how)
        + element(0x20, 0xE, b"UI", uid.encode(), **how)
        + element(0x20, 0x11, b"IS", b"7", **how)
    )
    return b"\0" * 128 + b"DICM" + meta + body + filler


@pytest.mark.parametrize("endless", [False, True])
@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, BIG])
def test_the_series_of_a_dicom_file_is_found(syntax, endless):
    for uid in ("1.2.3", "1.2.34"):
        found = dicom.series_uid(io.BytesIO(instance(uid, syntax, endless=endless)))
        assert found == uid


@pytest.mark.parametrize("data", [b"", b"x" * 500, instance("1")[:160], instance("1")[:-40]])
def test_what_tells_no_series_has_none(data):
    assert dicom.series_uid(io.BytesIO(data)) is None


@pytest.fixture
def series(tmp_path):
    """Two series of three and two instances, mixed, and one file that is broken."""
    for name, uid in zip("abcde", ["1.1", "2.2", "1.1", "2.2", "1.1"], strict=True):
        (tmp_path / f"{name}.dcm").write_bytes(instance(uid, filler=name.encode()))
    (tmp_path / "z.dcm").write_bytes(b"broken")
    return tmp_path


def test_a_series_is_one_slide(series):
    for pattern in (series, series / "*.dcm", f"{series}/*.dcm,{series}/e.dcm"):
        names = [path.name for path in slides.find_slides(str(pattern))]
        assert names == ["a.dcm", "b.dcm", "z.dcm"]
    assert [p.name for p in content.files_of(series / "c.dcm")] == ["c.dcm", "a.dcm", "e.dcm"]
    assert content.whole_digest(series / "a.dcm") == content.whole_digest(series / "e.dcm")


def test_a_series_behind_an_address_is_one_slide(series):
    system = fsspec.filesystem("memory")
    for path in series.iterdir():
        system.pipe(f"memory://series/{path.name}", path.read_bytes())
    try:
        found = remote.find("memory://series/*.dcm")
        assert [remote.name_of(source) for source in found] == ["a.dcm", "b.dcm", "z.dcm"]
        before = remote.fingerprint(found[0])
        system.pipe("memory://series/e.dcm", instance("1.1", filler=b"!"))
        assert remote.fingerprint(found[0]) != before
    finally:
        system.rm("memory://series", recursive=True)


def test_parts_of_a_slide_are_no_slides(tmp_path):
    """Hamamatsu's key file names the images beside it."""
    for name in ("one.jpg", "two.jpg", "other.jpg"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    (tmp_path / "s.vms").write_text("[Virtual Microscope]\nImageFile=one.jpg\nMapFile=two.jpg\n")
    assert [p.name for p in slides.find_slides(str(tmp_path))] == ["other.jpg", "s.vms"]


def test_a_mirax_slide_is_known_by_its_folder(tmp_path):
    (tmp_path / "s.mrxs").write_bytes(b"thumbnail")
    (tmp_path / "s").mkdir()
    (tmp_path / "s/Data0000.dat").write_bytes(b"pixels")
    before = content.digest(tmp_path / "s.mrxs"), content.whole_digest(tmp_path / "s.mrxs")
    (tmp_path / "s/Data0000.dat").write_bytes(b"PIXELS")
    after = content.digest(tmp_path / "s.mrxs"), content.whole_digest(tmp_path / "s.mrxs")
    assert before[0] != after[0]
    assert before[1] != after[1]


BESIDE = [
    "scene.tif.msk", "scene.tif.ovr", "scene.tif.aux.xml", "scene.tfw", "scene.tifw", "scene.wld",
    "scene.TFW",
]  # fmt: skip


@pytest.mark.parametrize("beside", BESIDE)
def test_what_gdal_reads_beside_a_raster_belongs_to_it(tmp_path, beside):
    path = tmp_path / "scene.tif"
    path.write_bytes(b"pixels")
    before, copies = content.digest(path), content.whole_digest(path)
    told = user_images.fingerprint(str(path))
    (tmp_path / beside).write_bytes(b"mask")
    assert content.digest(path) != before
    assert content.whole_digest(path) == copies  # QGIS has looked at one of two copies
    assert user_images.fingerprint(str(path)) != told


@pytest.mark.parametrize("name", ["scene.tif", "scene.TIF", "scene.tiff", "scene.jp2"])
@pytest.mark.parametrize("world", ["tfw", "TFW", "tifw", "tiffw", "j2w", "jp2w", "wld"])
def test_world_files_that_gdal_reads_are_known(tmp_path, name, world):
    """Asked of GDAL itself."""
    path, beside = tmp_path / name, tmp_path / f"scene.{world}"
    driver = "JP2OpenJPEG" if name.endswith("jp2") else "GTiff"
    with rasterio.open(tmp_path / "source", "w", "GTiff", 8, 8, 1, dtype="uint8") as file:
        file.write(np.zeros((1, 8, 8), np.uint8))
    rasterio.shutil.copy(tmp_path / "source", path, driver=driver)
    beside.write_text("2\n0\n0\n-2\n1\n1\n")
    with rasterio.open(path) as file:
        is_read = not file.transform.is_identity
    assert not is_read or beside in content.files_of(path)


@pytest.mark.parametrize("size", [0, 1, 5000, 3 * 2**20, 40 * 2**20])
@pytest.mark.parametrize("part", [0.0, 0.3, 0.5, 0.999])
def test_another_content_of_the_same_size_is_another_slide(tmp_path, size, part):
    """Also in the middle of a large one, where a thousandth of it is changed."""
    path, twin = tmp_path / "a.svs", tmp_path / "b.svs"
    for target in (path, twin):
        target.touch()
        os.truncate(target, size)
    assert content.digest(path) == content.digest(twin)
    if size:
        with twin.open("r+b") as file:
            file.seek(min(int(part * size), size - 1))
            file.write(b"!" * max(min(size // 1000 + 4096, size - int(part * size)), 1))
        os.truncate(twin, size)
        assert content.digest(path) != content.digest(twin)
        assert content.whole_digest(path) != content.whole_digest(twin)


def test_a_digest_does_not_depend_on_name_place_or_time(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "a.tif").write_bytes(b"pixels")
    (tmp_path / "folder/b.tif").write_bytes(b"pixels")
    os.utime(tmp_path / "a.tif", (1, 1))
    found = [content.digest(tmp_path / name) for name in ("a.tif", "folder/b.tif")]
    assert found[0] == found[1]


def test_a_large_file_costs_little(tmp_path):
    path = tmp_path / "large.svs"
    path.touch()
    os.truncate(path, 50 * 2**30)
    places = list(content._places(50 * 2**30))
    assert sum(length for _, length in places) < 7e6
    starts = np.array([start for start, _ in places])
    assert (np.diff(starts) > 0).all()
    assert sum(places[-1]) == 50 * 2**30


def test_formats_that_nothing_reads_are_found(tmp_path):
    """They are named among what could not be used."""
    names = ["a.czi", "b.btf", "c.qptiff", "d.vsi", "e.gif", "f.TIF"]
    for name in (*names, "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    assert [p.name for p in slides.find_slides(str(tmp_path))] == names


@pytest.mark.parametrize("suffix", [".vms", ".vmu", ".dcm", ".mrxs", ".tif", ".svs"])
@pytest.mark.parametrize("wrong", ["nowhere", "ring", "long name", "bytes", "long value", "items"])
def test_what_is_wrong_with_one_file_does_not_hide_the_others(tmp_path, suffix, wrong):
    good, bad = tmp_path / "z.png", tmp_path / f"a{suffix}"
    Image.new("RGB", (8, 8)).save(good)
    if wrong == "nowhere":
        bad.symlink_to("nothing")
    elif wrong == "ring":
        bad.symlink_to(bad.name)
    elif wrong == "long name":
        bad = bad.with_stem("a" * (255 - len(suffix)))
        bad.write_bytes(b"\0")
    else:
        item = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
        nested = element(8, 0x1115, b"SQ", b"", endless=True) + item * 5000
        bad.write_bytes({
            "bytes": bytes(range(256)) * 40 + b"=\0/" * 99,
            "long value": b"ImageFile=" + b"x" * 300,
            "items": instance("1").partition(element(8, 0x16, b"UI", b"1.2"))[0] + nested,
        }[wrong])  # fmt: skip
    assert slides.find_slides(str(tmp_path)) == [bad, good]
    with pytest.raises(slides.SlideError, match=r"^expected"):
        slides.open_slide(bad, mpp=0.5)
