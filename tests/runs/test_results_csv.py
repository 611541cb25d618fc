"""results.csv has a line for each evaluation, and one for an evaluation that was cut off and
repeated."""

import csv

import numpy as np

from ssldiff_jax.runs import results_csv


def rows(workdir):
    return list(csv.DictReader((workdir / "results.csv").open()))


def test_the_same_again_is_one_line_and_others_are_kept(tmp_path):
    of, results = {"tool": "evaluate", "sample": "a1"}, {"a": {"b": np.float32(0.1), "n": (3, 4)}}
    results_csv.add(tmp_path, of, results)
    results_csv.add(tmp_path, of, results)
    (line,) = rows(tmp_path)
    assert {k: v for k, v in line.items() if k != "date"} == {
        "tool": "evaluate", "sample": "a1", "a.b": "0.1", "a.n": "3 4",
    }  # fmt: skip
    results_csv.add(tmp_path, of, {"a": {"b": 0.2}})
    # Columns that others have are no part of a line.
    results_csv.add(tmp_path, of, {"a": {"b": 0.2}})
    results_csv.add(tmp_path, of, results)
    results_csv.add(tmp_path, of | {"sample": "a2"}, results)
    assert [(row["sample"], row["a.b"]) for row in rows(tmp_path)] == [
        ("a1", "0.1"), ("a1", "0.2"), ("a1", "0.1"), ("a2", "0.1"),
    ]  # fmt: skip
    assert list(rows(tmp_path)[0]) == ["date", "tool", "sample", "a.b", "a.n"]
