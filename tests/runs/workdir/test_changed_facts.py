"""What changed of the facts of slides: the slides that differ, a few of them, and how many."""

import pytest

from ssldiff_jax.runs.workdir import changed_facts

COUNT = 2000
SLIDES = [[f"{n}.svs", n, f"md5-{n}"] for n in range(COUNT)]
TABLE = [[0.5, f"case {n}", "", "train", []] for n in range(COUNT)]


def changed(key, old, changes):
    new = [list(facts) for facts in old]
    for number, place, value in changes:
        new[number][place] = value
    slides = SLIDES if key == "inputs.table" else []
    return changed_facts.line(key, old, new, slides, slides)


@pytest.mark.parametrize("count", [1, 3, 4, 900])
def test_a_few_rows_are_named_by_their_slides_and_all_are_counted(count):
    line = changed("inputs.table", TABLE, [(2 * n + 7, 0, 0.25) for n in range(count)])
    assert line.startswith(f"inputs.table: {count} of 2000 slides differ: 7.svs: mpp 0.5 → 0.25")
    assert line.count(".svs") == min(count, 3)
    assert line.endswith(", …") == (count > 3)
    assert len(line) < 300


def test_of_a_row_the_columns_that_differ_are_said():
    line = changed("inputs.table", TABLE, [(7, 2, "=cmd()"), (7, 3, "test")])
    assert line == (
        'inputs.table: 1 of 2000 slides differ: 7.svs: label "" → "=cmd()" and split "train" → '
        '"test"'
    )


def test_of_a_file_what_it_was_known_by_is_said():
    line = changed("inputs.slides", SLIDES, [(5, 2, "md5-other")])
    assert line == 'inputs.slides: 1 of 2000 slides differ: 5.svs: [5, "md5-5"] → [5, "md5-other"]'


def test_slides_that_came_and_went_do_not_move_the_others():
    now, table_now = [SLIDES[1], *SLIDES[3:]], [TABLE[1], *TABLE[3:]]
    line = changed_facts.line("inputs.table", TABLE, table_now, SLIDES, now)
    assert line.startswith("inputs.table: 2 of 2000 slides differ: 0.svs: [0.5, ")
    assert line.count("→ not there") == 2
    new = [*SLIDES, ["new.svs", 1, "x" * 5000]]
    line = changed_facts.line("inputs.slides", SLIDES, new, SLIDES, new)
    assert line.startswith("inputs.slides: 1 of 2001 slides differ: new.svs: not there → [1, ")
    assert len(line) < 300


def test_two_slides_of_one_name_and_another_order():
    old, new = [["a.svs", 1], ["a.svs", 2]], [["a.svs", 1], ["a.svs", 3]]
    line = changed_facts.line("inputs.slides", old, new, [], [])
    assert line == "inputs.slides: 1 of 1 slides differ: a.svs: [[1], [2]] → [[1], [3]]"
    line = changed_facts.line("inputs.slides", SLIDES, SLIDES[::-1], [], [])
    assert line == "inputs.slides: another order of 2000 slides"


def test_a_list_where_there_was_none():
    line = changed_facts.line("inputs.annotations", None, [["a.svs", "md5", ""]], [], [])
    assert line == 'inputs.annotations: 1 of 1 slides differ: a.svs: not there → ["md5", ""]'
    assert changed_facts.are_of_slides("inputs.annotations", None, [["a.svs", "md5", ""]])
    assert not changed_facts.are_of_slides("inputs.slides", None, None)
    assert not changed_facts.are_of_slides("data.levels", [1.0], [1.0, 2.0])
