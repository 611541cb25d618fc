"""Which files of a folder are one slide: instances of one DICOM series.

Source of the encoding: DICOM PS3.5, sections 7 and 10.
"""

import collections
import functools
import pathlib
import struct
from collections.abc import Iterator
from typing import BinaryIO

_SERIES = (0x0020, 0x000E)  # SeriesInstanceUID
_TRANSFER_SYNTAX = (0x0002, 0x0010)  # TransferSyntaxUID
# Transfer syntaxes that are read differently: implicit VR little endian, explicit VR big endian.
_IMPLICIT, _BIG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"
_LONG = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
_ITEM, _ITEM_END, _SEQUENCE_END = 0xE000, 0xE00D, 0xE0DD  # of group FFFE
_ENDLESS = 0xFFFFFFFF  # the length of a sequence that ends with a delimiter
_HEAD = 2**20  # the series stands in the first of it


def series_of(path: pathlib.Path) -> list[pathlib.Path]:
    """Files of the same folder and series, sorted; itself alone where it names no series."""
    by_series = _by_series(path.parent, path.parent.stat().st_mtime_ns)
    uid = series_uid_of(path)
    return by_series.get(uid, [path]) if uid else [path]


def series_uid_of(path: pathlib.Path) -> str | None:
    """The SeriesInstanceUID of a file; None where it names none."""
    stat = path.stat()
    return _series_uid(path, stat.st_size, stat.st_mtime_ns)


# The time is a part of the key: a folder that changes is read again.
@functools.lru_cache(64)
def _by_series(folder: pathlib.Path, _time: int) -> dict[str, list[pathlib.Path]]:
    series = collections.defaultdict(list)
    for path in sorted(p for p in folder.iterdir() if p.suffix.lower() == ".dcm" and p.is_file()):
        uid = series_uid_of(path)
        if uid:
            series[uid].append(path)
    return dict(series)


@functools.lru_cache(2**16)
def _series_uid(path: pathlib.Path, _size: int, _time: int) -> str | None:
    try:
        with path.open("rb") as file:
            return series_uid(file)
    except OSError:
        return None


def series_uid(file: BinaryIO) -> str | None:
    """The SeriesInstanceUID of a DICOM file; None for what is none, or names none at its head."""
    head = file.read(_HEAD)
    if head[128:132] != b"DICM":
        return None
    try:
        meta = dict(_elements(head, 132, order="<", is_explicit=True, group=2))
        syntax = _text(meta[_TRANSFER_SYNTAX])
        # 128 bytes of preamble and DICM; the group's length, an element of 12 bytes, counts from
        # its end.
        start = 132 + 12 + struct.unpack("<I", meta[0x0002, 0x0000])[0]
        order = ">" if syntax == _BIG else "<"
        for tag, value in _elements(head, start, order=order, is_explicit=syntax != _IMPLICIT):
            # Tags ascend: behind it, it does not come.
            if tag >= _SERIES:
                return _text(value) or None if tag == _SERIES else None
    except (struct.error, KeyError, UnicodeError, RecursionError):  # the last: items in items
        pass
    return None


def _text(value: bytes) -> str:
    # PS3.5, section 9.1: a UID is padded to an even length by a null.
    return value.decode("ascii").strip("\0 ")


def _elements(
    data: bytes, at: int, *, order: str, is_explicit: bool, group: int | None = None
) -> Iterator[tuple[tuple[int, int], bytes]]:
    """Tag and value of elements from a place on, while they are of `group`; sequences are empty."""
    while at + 8 <= len(data):
        tag, start, length = _header(data, at, order, is_explicit)
        if group is not None and tag[0] != group:
            return
        if length == _ENDLESS:
            at = _after_items(data, start, order, is_explicit)
            yield tag, b""
        else:
            at = start + length
            yield tag, data[start:at]


def _header(
    data: bytes, at: int, order: str, is_explicit: bool
) -> tuple[tuple[int, int], int, int]:
    """Tag, where the value starts, and its length."""
    tag = struct.unpack_from(f"{order}HH", data, at)
    # Items and delimiters have no type of value in any syntax.
    if not is_explicit or tag[0] == 0xFFFE:
        return tag, at + 8, struct.unpack_from(f"{order}I", data, at + 4)[0]
    # Two reserved bytes, then a length of four.
    if data[at + 4 : at + 6] in _LONG:
        return tag, at + 12, struct.unpack_from(f"{order}I", data, at + 8)[0]
    return tag, at + 8, struct.unpack_from(f"{order}H", data, at + 6)[0]


def _after_items(data: bytes, at: int, order: str, is_explicit: bool) -> int:
    """The place behind a sequence, or an item, of undefined length."""
    while True:
        tag, start, length = _header(data, at, order, is_explicit)
        if tag[0] == 0xFFFE and tag[1] in (_ITEM_END, _SEQUENCE_END):
            return start
        is_endless = length == _ENDLESS
        at = _after_items(data, start, order, is_explicit) if is_endless else start + length
