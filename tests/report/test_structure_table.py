"""The table of structure, and its figures in the README's table and beside other runs."""

import re

import pytest

from ssldiff_jax.report import comparison, key_figures, metrics, networks, structure
from tests.report import test_figures, test_parts, test_report

workdir = test_figures.workdir

METHOD = "95%, bootstrap over 32 blocks of 2 × 2 cells"
FEW = "too few: 4 blocks of 2 × 2 cells, 8 needed"


def estimate(value, low=None, high=None):
    return {"value": value, "low": low, "high": high, "blocks": 32,
            "interval": FEW if low is None else METHOD}  # fmt: skip


def sides(value):
    of = lambda x: estimate(x, x - 0.0625, x + 0.125)
    return {"generated": of(value), "real_moved": of(value + 0.25), "other_region": of(0.03125)}


def figures():
    few = {side: estimate(0.25) for side in ("generated", "real_moved", "other_region")}
    none = {side: estimate(None) for side in few}
    return {
        "edges": {"orientation": sides(0.125), "strength": sides(0.5)},
        "class_iou": {"mean": sides(0.375), "nuclei": few, "empty": none},
        "ms_ssim": {"ms_ssim": sides(0.25)},
        "nuclei": {"count": sides(0.5), "area": sides(0.625), "count_ratio": sides(0.75)},
        "power": {"periods_of_2_to_4_px": sides(0.125), "periods_around_4_px": sides(0.375)},
    }


def cells(text, title):
    return re.findall("<td>(.*?)</td>", text.partition(f">{title}</th>")[2])[:3]


def test_every_figure_has_a_row_beside_real_images():
    text = structure.part({"structure": figures()})
    assert test_parts.is_whole(text)
    first = "0.375 <small>0.312 … 0.500</small>"
    assert cells(text, "class maps, intersection over union: mean")[0] == first
    assert cells(text, "nuclei over those of the real image")[0].startswith("0.750 ")
    assert cells(text, "MS-SSIM of grey squares")[1].startswith("0.500 ")
    assert cells(text, "edges, correlation: strength")[2].startswith("0.0312 ")
    title = "power over that of the real image: periods of 2 to 4 px"
    assert cells(text, title)[0].startswith("0.125 ")
    assert "bootstrap over 32 blocks of 2 × 2 cells." in text


def test_a_figure_without_an_interval_says_why():
    text = structure.part({"structure": figures()})
    assert cells(text, "class maps, intersection over union: nuclei")[0] == f"0.250; {FEW}"
    assert cells(text, "class maps, intersection over union: empty")[0] == FEW
    assert structure.part({"structure": None}) == ""


def test_the_readme_s_table_has_the_main_figures(workdir):
    test_figures.add(workdir, structure=figures())
    collected, _ = test_figures.collect(workdir)
    text = test_figures.figures.markdown(collected)
    row = lambda name: test_figures.row(text, name)
    assert row("class maps at 8 px") == ["0.38 (0.31 … 0.50); 0.62; 0.03", "", "–"]
    assert row("MS-SSIM") == ["0.25 (0.19 … 0.38); 0.50; 0.03", "", "–"]
    assert row("edges at 8 px") == ["0.12 (0.06 … 0.25); 0.38; 0.03", "", "–"]
    assert row("nuclei in a cell, correlation of their number")[0].startswith("0.50 (")
    assert row("nuclei over those of the real image") == ["0.75 (0.69 … 0.88)", "", "–"]
    assert row("power at periods around 4 px") == ["0.38 (0.31 … 0.50)", "", "–"]


@pytest.mark.parametrize(
    ("title", "best"), [("class maps at 8 px, IoU", 0), ("power around 4 px", 1)]
)
def test_runs_are_compared_by_structure(workdir, tmp_path_factory, title, best):
    """A class map that agrees more is better, power nearer to that of real images."""
    other = tmp_path_factory.mktemp("other")
    test_report.make_workdir(other)
    test_figures.add(workdir, structure=figures())
    nearer = figures()
    nearer["class_iou"]["mean"]["generated"] = estimate(0.25, 0.2, 0.3)
    nearer["power"]["periods_around_4_px"]["generated"] = estimate(1.25, 1, 2)
    test_figures.add(other, structure=nearer)
    text = comparison.comparison([workdir, other])
    row = re.search(rf"<th scope=\"row\">{title} .*?</tr>", text)[0]
    columns = re.findall(r"<td(?: class=\"(best)\")?>", row)
    assert columns.index("best") == best


def test_diversity_is_the_judge_s_and_says_how_near_real_patches_are(workdir):
    spread = {"corrected": estimate(0.75, 0.5, 1.0), "uncorrected": estimate(0.25, 0.125, 0.5),
              "nearness": 0.375, "num_embeddings": 32, "num_variations": 4}  # fmt: skip
    test_figures.add(workdir, diversity=spread)
    collected, _ = test_figures.collect(workdir)
    row = test_figures.row(test_figures.figures.markdown(collected), "diversity of patches")
    assert row == ["", "0.75 (0.50 … 1.00); 0.25; 0.38", "–"]
    text = key_figures.part(metrics.collect(workdir))
    assert test_parts.is_whole(text)
    assert "95 % interval: 0.500…1.00." in text
    test_figures.add(workdir, diversity=spread | {"corrected": estimate(0.75)})
    assert f"No interval, {FEW}." in key_figures.part(metrics.collect(workdir))


def test_a_network_from_outside_has_its_own_rows(workdir):
    outside = {"efficientnet-lite0": test_report._FEATURES | {"cell_retrieval_top1": 1.0}}
    test_figures.add(workdir, outside=outside, patches={"efficientnet-lite0": {}})
    collected, _ = test_figures.collect(workdir)
    text = test_figures.figures.markdown(collected)
    retrieval = test_figures.row(text, "cell retrieval, top 1, by EfficientNet-Lite0")
    # Wilson's interval of 6 of 6: 1 / (1 + z² / 6).
    assert retrieval[:2] == ["", f"1.00 ({1 / (1 + 1.959964**2 / 6):.2f} … 1.00)"]
    assert test_figures.row(text, "Fréchet distance of crops of large images by Eff")[1] == (
        "0.200 (0.050)"
    )
    table = networks.part(metrics.collect(workdir))
    row = cells(table, "cell retrieval, top 1, of networks from outside the run")
    assert row[0] == "1.00"
