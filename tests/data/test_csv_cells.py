"""Texts that a spreadsheet would compute: written so that it does not, and read as they were."""

import csv
import io
import itertools

import pytest

from ssldiff_jax.data import csv_cells, slide_table
from ssldiff_jax.runs import results_csv

# OWASP's page on CSV injection names these beginnings, and the wide forms of them.
COMPUTED = ["=1+1", "=HYPERLINK(1)", "@SUM(A1)", "+cmd|'/c calc'!A0", "-2+3", "＝1", "\t=1", "\r=1"]
PLAIN = ["a.svs", "", "O'Brien", "'quoted'", "tumour - 2", "a=1", "-0.5", "+1e-05", "-inf", "-3",
         "'", "''", "'-5", "-.5", "/data/a b.svs", "nan"]  # fmt: skip


def through_a_file(values):
    file = io.StringIO(newline="")
    csv_cells.Writer(file).row(values)
    text = file.getvalue()
    (cells,) = csv.reader(io.StringIO(text, newline=""))
    return cells


@pytest.mark.parametrize("text", [*COMPUTED, *(f"'{text}" for text in COMPUTED)])
def test_what_is_computed_stands_behind_an_apostrophe(text):
    assert through_a_file([text]) == [f"'{text}"]


@pytest.mark.parametrize("text", [text for text in PLAIN if text])
def test_all_else_stands_as_it_is(text):
    assert through_a_file([text]) == [text]


def test_every_short_text_is_read_as_it_was():
    """All of up to four of the characters that matter, and no two are written alike."""
    texts = ["".join(c) for n in range(5) for c in itertools.product("'=-+@ 1.ae\t", repeat=n)]
    written = list(map(csv_cells.quoted, texts))
    assert list(map(csv_cells.unquoted, written)) == texts
    assert len(set(written)) == len(texts)
    assert not any(text.lstrip()[:1] in ("=", "@") for text in written if text.strip())


def test_numbers_stay_numbers():
    assert through_a_file([-0.5, 3, float("-inf"), None]) == ["-0.5", "3", "-inf", ""]


def test_a_table_with_formulas_is_read_as_it_was_meant(tmp_path):
    """One that we wrote, and one of a user that has them as they are."""
    slide = tmp_path / "=HYPERLINK(1).svs"
    slide.write_bytes(b"slide")
    row = [slide.name, "@case", "-label"]
    found = []
    for name, cells in (("ours.csv", map(csv_cells.quoted, row)), ("theirs.csv", row)):
        with (tmp_path / name).open("w", newline="") as file:
            csv.writer(file).writerows([["slide", "case", "label"], list(cells)])
        ((source, said),) = slide_table.read(str(tmp_path / name), "").items()
        found.append((source, said.case, said.label))
    assert found == [(str(slide), "@case", "-label")] * 2


def test_results_keep_theirs_over_evaluations(tmp_path):
    """Lines are read and written again with each that is added."""
    for seed in (1, 2, 3):
        results_csv.add(tmp_path, {"tool": "=cmd()", "seed": seed}, {"kid": -0.5, "+name": "-x"})
    rows = list(csv.reader((tmp_path / "results.csv").open(newline="")))
    assert rows[0][1:] == ["tool", "seed", "kid", "'+name"]
    assert [row[1:] for row in rows[1:]] == [["'=cmd()", str(n), "-0.5", "'-x"] for n in (1, 2, 3)]
    with (tmp_path / "results.csv").open(newline="") as file:
        assert [r["+name"] for r in csv_cells.written_rows(file)] == ["-x"] * 3
