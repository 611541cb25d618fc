"""The pages tell the truth: links resolve, tables match the code, each page is short."""

import pathlib
import re
import signal
import xml.etree.ElementTree as ElementTree

import pages
import pytest
from ml_collections import ConfigDict

from configs import default
from launch.pages import pipeline, readme
from ssldiff_jax import main
from ssldiff_jax.core import interrupt
from ssldiff_jax.encoders import known
from ssldiff_jax.formats import atomic
from ssldiff_jax.report import goals
from ssldiff_jax.runs.command import catalog
from ssldiff_jax.stages import table

ROOT, TEXTS = pages.ROOT, pages.texts()
each_page = pytest.mark.parametrize("page", TEXTS)

PACKAGES = ("data", "evaluation", "prior", "sampler", "slides", "stages", "train", "weights")


def test_every_package_that_a_reader_enters_has_a_page():
    expected = {"README.md", "configs/README.md", "launch/README.md", "tests/README.md"}
    expected |= {
        "ssldiff_jax/README.md",
        *(f"ssldiff_jax/{package}/README.md" for package in PACKAGES),
    }
    assert expected <= set(TEXTS)


@each_page
def test_page_is_short(page):
    assert len(TEXTS[page].splitlines()) <= (250 if page == "README.md" else 150)


def test_step_and_tool_tables_list_every_stage_in_order():
    text = TEXTS["ssldiff_jax/stages/README.md"]
    is_tool = lambda name: table.STAGES[name].tool
    assert pages.rows(text, "## Steps") == [name for name in table.STAGES if not is_tool(name)]
    assert pages.rows(text, "## Tools") == [name for name in table.STAGES if is_tool(name)]


def test_step_table_reads_what_the_stages_need():
    text = TEXTS["ssldiff_jax/stages/README.md"]
    cells = dict(re.findall(r"^\| `(\w+)` \| ([\w, ]+) \|", text, re.M))
    for name, row in catalog.ROWS.items():
        if row.tool or not row.reads:
            continue
        assert tuple(cells[name].split(", ")) == table.STAGES[name].needs, name


def test_encoder_table_lists_every_known_encoder():
    text = TEXTS["ssldiff_jax/weights/ENCODERS.md"]
    assert pages.rows(text, "## Known encoders")[1:] == list(known.ENCODERS)
    for name, encoder in known.ENCODERS.items():
        row = re.search(rf"^\| `{name}` \|.*$", text, re.M)[0]
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        pool = "attention" if encoder.head else encoder.vit.pool.replace("_", ", ")
        pixels, middle = encoder.pixels, f" of {encoder.pixels.resize_px}"
        assert cells[2:] == [
            pool, str(encoder.dim), f"{pixels.input_px}{middle if pixels.resize_px else ''}",
            encoder.licence, encoder.source, encoder.unverified or "–",
        ], name  # fmt: skip


def test_config_table_lists_every_config():
    files = {path.name for path in (ROOT / "configs").glob("*.py")}
    assert set(pages.rows(TEXTS["configs/README.md"], "## Which config for what")) == files
    named = re.findall(r"configs/\w+\.py", "".join(TEXTS.values()))
    assert {pathlib.PurePath(name).name for name in named} <= files


def test_the_keys_that_matter_are_24_and_leaves():
    keys = pages.rows(TEXTS["configs/README.md"], "## The 24 keys that matter")
    assert len(set(keys)) == 24
    for key in keys:
        value = default.get_config()
        for name in key.removeprefix("config.").split("."):
            value = value[name]
        assert not isinstance(value, ConfigDict), key


def test_exit_statuses_are_those_of_the_code():
    statuses = TEXTS["launch/README.md"].partition("\n## Exit status\n")[2].partition("\n## ")[0]
    expected = [0, 1, main.QUARANTINED, interrupt.STATUS, main.STOPPED]
    assert re.findall(r"^\| (\d+) \|", statuses, re.M) == [str(status) for status in expected]
    assert main.STOPPED == 128 + signal.SIGTERM


def layout(text):
    """The lines of a page's layout: name of a folder, what it has."""
    return re.findall(r"^(\w+)/ +\S", text, re.M)


def test_layout_lines_name_the_folders_that_exist():
    import test_imports

    assert layout(TEXTS["README.md"]) == ["ssldiff_jax", "configs", "launch", "tests"]
    packages = layout(TEXTS["ssldiff_jax/README.md"])
    assert packages == [package for package in test_imports.PACKAGES if package != "main"]
    tracked = {path.name for path in ROOT.iterdir() if path.is_dir() and path.name[0] != "."}
    assert set(layout(TEXTS["README.md"])) == tracked - {"runs"}


@each_page
def test_files_that_a_page_names_exist(page):
    """`x.py` is beside the page or below it."""
    folder = (ROOT / page).parent
    for name in re.findall(r"`([\w/]+\.(?:py|sh|sbatch))`", TEXTS[page]):
        inside = [folder / name, ROOT / name, *folder.rglob(name)]
        assert any(path.exists() for path in inside), name


def test_modules_that_pages_name_exist():
    for page, text in TEXTS.items():
        for name in re.findall(r"`((?:ssldiff_jax|tests|configs|launch)/[\w/.]+)`", text):
            assert (ROOT / name).exists(), f"{page}: {name}"


@each_page
def test_names_of_code_are_in_the_code(page):
    """`snake_case` in a page: an argument, a key of results, a file."""
    folders = ("ssldiff_jax", "tests", "configs", "launch")
    paths = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    code = "".join(path.read_text() for path in paths)
    named = re.findall(r"`([a-z0-9]+(?:_[a-z0-9]+)+)`", TEXTS[page])
    golden = {path.stem for path in (ROOT / "tests" / "golden").iterdir()}
    composed = {"train_x2", "train_x4"}  # splits, of config.data.records.scales
    assert {name for name in named if name not in code} <= {*golden, *readme.BLOCKS, *composed}


def anchors(text):
    """What links after # can lead to: headings as they are made to anchors."""
    headings = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


@each_page
def test_links_between_pages_resolve(page):
    folder = (ROOT / page).parent
    for link in re.findall(r"\]\((?!http)([^)]+)\)", TEXTS[page]):
        name, _, anchor = link.partition("#")
        path = (folder / name).resolve() if name else ROOT / page
        assert path.exists(), link
        assert not anchor or anchor in anchors(path.read_text()), link


def test_every_page_is_within_two_links_of_the_first():
    links = lambda page: {
        str((ROOT / page).parent.joinpath(link.partition("#")[0]).resolve().relative_to(ROOT))
        for link in re.findall(r"\]\((?!http|#)([^)]+\.md[^)]*)\)", TEXTS[page])
    }
    assert links("README.md") >= set(TEXTS) - {"README.md"}


@pytest.mark.parametrize("name", readme.BLOCKS)
def test_figures_are_those_of_a_run(name):
    collected, block = atomic.read_json(ROOT / ".assets" / f"{name}.json"), readme.BLOCKS[name]
    text = TEXTS[block.page]
    assert readme.put(text, name, block.markdown(collected)) == text


@each_page
def test_marks_are_those_of_blocks(page):
    names = [name for name, block in readme.BLOCKS.items() if block.page == page]
    assert sorted(re.findall(r"^<!-- (\w+) -->$", TEXTS[page], re.M)) == sorted(names)


def test_first_page_repeats_what_was_measured():
    archive = TEXTS[readme.BLOCKS["archive"].page]
    hours = re.search(r"(\d+ core hours) for 1 000 slides", TEXTS["README.md"])[1]
    assert re.search(rf"^\| tiling.*\| {hours} \|", archive, re.M)


def test_symptoms_are_the_words_of_the_code():
    section = TEXTS["README.md"].partition("\n## Troubleshooting\n")[2].partition("\n## ")[0]
    quoted = re.findall(r'"([^"]+)"', "".join(re.findall(r"^\| ([^|]+) \|", section, re.M)))
    assert len(quoted) >= 8
    code = "".join(path.read_text() for path in (ROOT / "ssldiff_jax").rglob("*.py"))
    joined = re.sub(r'"\s*\n\s*f?"', "", code)
    assert [words for words in quoted if words not in joined] == []


def test_goals_of_the_demo_are_the_ones_in_force():
    collected = atomic.read_json(ROOT / ".assets" / "demo.json")
    assert len(collected["figures"]) >= 10
    rows = {row.name: row for row in goals.ROWS}
    for figure in collected["figures"]:
        row = rows[figure["name"]]
        assert figure["goal"] == row.aims
        missed = [e for e in goals.ENCODERS if e in figure and not row.aim(e).is_met(figure[e])]
        assert figure["missed"] == missed


def test_pipeline_drawing_is_up_to_date():
    """`python -m launch.pages.pipeline` makes it anew."""
    assert (ROOT / pipeline.PATH).read_text() == pipeline.drawing()
    assert set(pipeline.BOXES) == {name for name, stage in table.STAGES.items() if not stage.tool}


def luminance(colour):
    """Relative luminance of "#rrggbb" (WCAG 2)."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_pipeline_drawing_is_legible_on_white_and_on_dark_pages():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    for background in ("#ffffff", "#0d1117"):
        assert contrast(pipeline.ARROW, background) >= 3  # lines, WCAG 1.4.11
    for box in pipeline.BOXES.values():
        assert contrast(box.kind.text, box.kind.fill) >= 7  # text lies in its box alone


def test_pipeline_drawing_has_its_words_inside_its_boxes():
    root = ElementTree.fromstring(pipeline.drawing())
    space = "{http://www.w3.org/2000/svg}"
    boxes, texts = root.findall(f"{space}rect"), root.findall(f"{space}text")
    assert len(texts) == 3 * len(boxes)
    for i, text in enumerate(texts):
        box, size = boxes[i // 3], float(text.get("font-size"))
        left, width = float(box.get("x")), float(box.get("width"))
        assert float(text.get("x")) == left + width / 2
        # Sans-serif letters are 0.55 of their size wide on average, bold ones 0.62.
        letter = 0.62 if text.get("font-weight") == "600" else 0.55
        assert len(text.text) * size * letter <= width
