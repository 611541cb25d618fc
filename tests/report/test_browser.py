"""The report in a browser: opened as a file and from a server, its views linked, no request
beyond its folder."""

import functools
import http.server
import itertools
import json
import re
import shutil
import threading
import urllib.parse

import numpy as np
import pytest
from PIL import Image

from configs import default
from ssldiff_jax.report import metrics, page
from tests.report import chromium, test_report

pytestmark = pytest.mark.skipif(
    not (chromium.CHROMIUM and chromium.DRIVER),
    reason="chromium and chromedriver are not installed",
)
WIDE = 4112  # px, too wide to be loaded whole


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """One session for all tests."""
    session = chromium.Browser(tmp_path_factory.mktemp("chromium"))
    yield session
    session.driver.quit()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A report on a small region and on one that needs tiles, of slides with bad names."""
    workdir = tmp_path_factory.mktemp("run")
    test_report.make_workdir(workdir)
    config = json.loads(default.get_config().to_json_best_effort())
    config["data"]["crops"]["patch_px"] = 16
    (workdir / "config.json").write_text(json.dumps(config))
    noise = np.random.default_rng(0)
    table = "number,slide,mpp,height,width,train,test\n0,a,0.25,999,999,1,1\n"
    (workdir / "patches" / "slides.csv").write_text(table)
    told = {"window_lines": [{"rows": [8, 24], "cols": [16, 40]}]}
    for i in range(2):
        (workdir / "sample" / f"image_{i}.json").write_text(json.dumps(told))
    for name in ("patches/region_1.png", "sample/image_1.png"):
        Image.fromarray(noise.integers(0, 256, (64, WIDE, 3), np.uint8)).save(workdir / name)
    cosines = noise.random((4, WIDE // 16), np.float32)
    np.save(workdir / "evaluate" / "similarity_1.npy", cosines)
    report = workdir / "report"
    page.build(workdir, report, metrics.collect(workdir))
    return report


@pytest.fixture(scope="module")
def server(folder):
    """The address of a plain file server."""
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}/index.html"
        running.shutdown()


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A file server that says nothing, and has no icon to be missed."""

    def log_message(self, *args):
        pass

    def do_GET(self):
        if self.path == "/favicon.ico":
            self.send_response(204)
            self.end_headers()
        else:
            super().do_GET()


@pytest.fixture(params=["file", "server"])
def opened(request, browser, folder, server):
    """The page, with every view opened, as a file or from a server."""
    url = (folder / "index.html").as_uri() if request.param == "file" else server
    browser.resize(1280, 900)
    browser.open(url)
    for i in range(2):
        show(browser, i)
    browser.url = url
    return browser


def show(browser, i):
    browser.run(f"document.querySelectorAll('.viewer')[{i}].scrollIntoView()")
    loaded = f"""
        const {{panes}} = document.querySelectorAll('.viewer')[{i}];
        return !!panes && panes.every(p => p.isOpen() && p.world.getItemAt(0).getFullyLoaded());
    """
    browser.wait(lambda: browser.run(loaded), f"images of view {i}")


def views(browser, i=0):
    """Where both panes will be, once they have moved: zoom and centre."""
    return np.array(
        browser.run(f"""
            return document.querySelectorAll('.viewer')[{i}].panes.map(({{viewport}}) => {{
              const centre = viewport.getCenter(false);
              return [viewport.getZoom(false), centre.x, centre.y];
            }});
        """)
    )


def settle(browser, i=0):
    """Wait until both panes stand still; where they are shown."""
    script = f"""
        return document.querySelectorAll('.viewer')[{i}].panes.map(({{viewport}}) => {{
          const centre = viewport.getCenter(true);
          return [viewport.getZoom(true), centre.x, centre.y];
        }});
    """
    browser.wait(lambda: np.allclose(browser.run(script), views(browser, i), 1e-4), "rest")
    return np.array(browser.run(script))


def press(browser, name, i=0):
    """Click a button; whether it is pressed then."""
    return browser.run(f"""
        const button = document.querySelectorAll('.viewer')[{i}].querySelector('[data-do={name}]');
        button.click();
        return button.getAttribute('aria-pressed');
    """)


def painted(browser, i=0):
    """Pixels that overlays cover in each pane."""
    return browser.run(f"""
        const overs = document.querySelectorAll('.viewer')[{i}].querySelectorAll('.over');
        return [...overs].map((canvas) => {{
          const pen = canvas.getContext('2d');
          const {{data}} = pen.getImageData(0, 0, canvas.width, canvas.height);
          return data.filter((value, at) => at % 4 === 3 && value > 0).length;
        }});
    """)


def test_no_error_and_no_request_beyond_the_folder(opened):
    press(opened, "map")
    settle(opened)
    assert [e for e in opened.log("browser") if e["level"] in ("SEVERE", "WARNING")] == []
    # The browser's own pages ask for parts of its own.
    none = ("data:", "blob:", "chrome:", "chrome-untrusted:")
    asked = [url for url in opened.requests() if not url.startswith(none)]
    home = opened.url.rpartition("/")[0]
    assert asked
    assert [url for url in asked if not url.startswith(home)] == []
    names = {urllib.parse.unquote(url.removeprefix(f"{home}/")) for url in asked}
    assert "openseadragon.min.js" in names
    assert any(name.startswith("reference_1_files/") for name in names)
    assert any(name.startswith("synthetic_1_files/") for name in names)


@pytest.mark.parametrize(("view", "pane"), itertools.product((0, 1), (0, 1)))
def test_what_moves_one_image_moves_the_other(opened, view, pane):
    before = settle(opened, view)
    np.testing.assert_allclose(before[0], before[1], rtol=1e-3)
    opened.run(f"""
        const {{viewport}} = document.querySelectorAll('.viewer')[{view}].panes[{pane}];
        viewport.zoomBy(2);
        viewport.panBy(new OpenSeadragon.Point(0.05, 0));
        viewport.applyConstraints();
    """)
    after = settle(opened, view)
    assert after[pane, 0] == pytest.approx(2 * before[pane, 0], rel=1e-3)
    assert after[pane, 1] == pytest.approx(before[pane, 1] + 0.05, abs=1e-3)
    np.testing.assert_allclose(after[0], after[1], rtol=1e-3)


def test_the_keyboard_moves_both(opened):
    opened.run("document.querySelector('.viewer').focus()")
    start = settle(opened)
    opened.keys("++")
    zoomed = settle(opened)
    np.testing.assert_allclose(zoomed[:, 0], 2.25 * start[:, 0], rtol=1e-3)
    opened.keys("\ue014")  # the right arrow
    moved = settle(opened)
    assert (moved[:, 1] > zoomed[:, 1]).all()
    np.testing.assert_allclose(moved[0], moved[1], rtol=1e-3)
    assert "similarity 0." in opened.run("return document.querySelector('output').textContent")
    opened.keys("0")
    np.testing.assert_allclose(settle(opened), start, rtol=1e-3)


@pytest.mark.parametrize("name", ["cells", "windows"])
def test_lines_are_switched_on_and_off(opened, name):
    assert painted(opened) == [0, 0]
    assert press(opened, name) == "true"
    assert min(painted(opened)) > 100
    assert press(opened, name) == "false"
    assert painted(opened) == [0, 0]


def test_the_map_covers_the_images(browser, server):
    browser.open(server)
    show(browser, 0)
    assert press(browser, "map") == "true"
    browser.wait(lambda: min(painted(browser)), "the map")
    size = browser.run("const c = document.querySelector('.over'); return c.width * c.height")
    assert min(painted(browser)) > 0.9 * size  # the image fills its pane
    assert press(browser, "map") == "false"
    assert painted(browser) == [0, 0]


def bars(browser, i=0):
    """Length (µm) and width (px) of both scale bars, their words, and pixels of the screen for one
    of the image."""
    return browser.run(f"""
        const root = document.querySelectorAll('.viewer')[{i}];
        const boxes = [...root.querySelectorAll('.scale')].filter((box) => !box.hidden);
        return boxes.map((box, k) => [
          +box.dataset.um, box.querySelector('i').getBoundingClientRect().width,
          box.querySelector('span').textContent,
          root.panes[k].viewport.viewportToImageZoom(root.panes[k].viewport.getZoom(true)),
        ]);
    """)


@pytest.mark.parametrize("view", [0, 1])
def test_scale_bars_are_as_long_as_they_say(opened, view):
    """0.5 µm a pixel: a bar of N µm covers 2 N pixels of the image, at any zoom."""
    settle(opened, view)
    whole = bars(opened, view)
    opened.run(f"document.querySelectorAll('.viewer')[{view}].panes[0].viewport.zoomBy(3)")
    settle(opened, view)
    close = bars(opened, view)
    assert len(whole) == len(close) == 2
    for um, width, said, zoom in (*whole, *close):
        assert width == pytest.approx(2 * um * zoom, rel=0.02)
        assert 40 < width <= 145
        assert re.match(r"[125]0* (nm|µm|mm) · [\d.,]+× on screen$", said)
    assert close[0][0] < whole[0][0]


def test_scale_bars_of_scenes_are_in_metres(opened):
    assert opened.run("return lengthText(5e8, true)") == "500 m"
    assert opened.run("return lengthText(2e9, true)") == "2 km"
    assert opened.run("return lengthText(2e5, true)") == "20 cm"
    assert opened.run("return lengthText(2e5, false)") == "200 mm"
    said = opened.run("""
        const box = document.querySelector('.scale');
        showScale(box, 3e6, true);
        return box.querySelector('span').textContent;
    """)
    assert said == "200 m · 3 m per screen pixel"


def test_coordinates_are_those_under_the_pointer_at_full_resolution(opened):
    """Region 1 lies at row 1, column 2 of pixels of 0.5 µm; the slide has 0.25 µm."""
    settle(opened)
    said = opened.run("""
        const port = document.querySelector('.viewer .synthetic .port');
        const box = port.getBoundingClientRect();
        const at = { clientX: box.left + box.width * 20.75 / 48, bubbles: true,
          clientY: box.top + box.height * 10.75 / 32 };
        port.dispatchEvent(new PointerEvent('pointermove', at));
        return document.querySelector('.viewer output').textContent;
    """)
    assert said.startswith(
        "image x 20, y 10 px; slide at full resolution x 45, y 23 px; cell in row 1, column 2"
    )


def test_a_table_that_is_cut_says_so_until_its_end(browser, server):
    script = """
        const boxes = [...document.querySelectorAll('.wide')];
        return boxes.map((box) => [box.scrollWidth > box.clientWidth + 1,
          getComputedStyle(box, '::before').content, getComputedStyle(box).backgroundImage]);
    """
    browser.resize(360, 900)
    browser.open(server)
    browser.wait(lambda: any("→" in said for _, said, _ in browser.run(script)), "a cue")
    found = browser.run(script)
    assert {cut for cut, *_ in found} == {True, False}
    for cut, said, shadow in found:
        assert ("scroll →" in said) == cut
        assert shadow.count("linear-gradient") == 4  # what is seen without a script
    ends = "document.querySelectorAll('.wide').forEach((b) => b.scrollTo(b.scrollWidth, 0))"
    browser.run(ends)
    browser.wait(lambda: not any("→" in said for _, said, _ in browser.run(script)), "no cue")


def test_the_command_is_copied_or_selected(opened):
    text = opened.run("""
        const button = document.querySelector('[data-copy]');
        button.click();
        return document.querySelector('.command code').textContent;
    """)
    assert "python -m ssldiff_jax.main --workdir=" in text
    label = lambda: opened.run("return document.querySelector('[data-copy]').textContent")
    opened.wait(lambda: label() != "Copy", "an answer")
    if label() != "Copied":
        assert opened.run("return getSelection().toString()").strip() == text.strip()


def test_a_swipe_lays_one_over_the_other(opened):
    press(opened, "swipe")
    boxes = opened.run("""
        const ports = [...document.querySelector('.viewer').querySelectorAll('.port')];
        return ports.map((p) => [p.getBoundingClientRect().left, p.getBoundingClientRect().top]);
    """)
    np.testing.assert_allclose(boxes[0], boxes[1], atol=1)
    after = settle(opened)
    np.testing.assert_allclose(after[0], after[1], rtol=1e-3)


def test_names_of_slides_run_no_script(opened):
    assert opened.run("return window.hacked") is None
    assert opened.run("return document.querySelector('.region h3').textContent").startswith(
        f"Region 1: {test_report.HOSTILE}"
    )


@pytest.mark.parametrize("width", [360, 800, 1280])
def test_no_page_is_wider_than_its_window(browser, server, width):
    browser.resize(width, 900)
    browser.open(server)
    beyond, columns = browser.run("""
        const width = document.documentElement.clientWidth;
        const wide = [...document.querySelectorAll('body *')].filter(
          (e) => e.getBoundingClientRect().right > width + 1 && !e.closest('.wide'));
        const panes = getComputedStyle(document.querySelector('.panes'));
        return [wide.map((e) => e.outerHTML.slice(0, 80)),
          panes.gridTemplateColumns.split(' ').length];
    """)
    assert beyond == []
    assert columns == (1 if width < 700 else 2)


def test_without_the_viewer_the_plain_images_are_shown(browser, folder, tmp_path):
    plain = shutil.copytree(folder, tmp_path / "plain")
    (plain / "openseadragon.min.js").unlink()
    browser.open((plain / "index.html").as_uri())
    shown = browser.run("""
        const images = [...document.querySelectorAll('.port img')];
        return images.map((i) => i.complete && i.naturalWidth > 0 &&
          getComputedStyle(i).visibility === 'visible');
    """)
    assert shown == [True] * 4
