"""The tutorial, run as it stands on its page, on a small run."""

import numpy as np
import pyvips
from PIL import Image

from launch.pages import tutorial


def test_the_page_runs_and_makes_its_pictures(command, workdir, region, tmp_path, capsys):
    done = command(workdir, "--config.stages=export")
    assert done.returncode == 0, done.stderr[-3000:]
    made = tutorial.run(workdir, tmp_path)
    shown = {name: np.asarray(Image.open(made / f"{name}.png")) for name in tutorial.PICTURES}
    px, side = 64, 128
    assert [image.shape for image in shown.values()] == [
        (side, 4 * side, 3), (side, 4 * side, 3), (px, 8 * px, 3), (side, 3 * side, 3)
    ]  # fmt: skip
    # Each begins with what it was made from.
    np.testing.assert_array_equal(shown["generated"][:, :side], region[:side, :side])
    np.testing.assert_array_equal(shown["variations"][:, :px], region[px:side, px:side])
    hole = shown["filled"][:, :side]
    assert not hole[px // 2 : side - px // 2, px // 2 : side - px // 2].any()
    np.testing.assert_array_equal(hole[: px // 2], region[: px // 2, :side])
    # Another reader than the page's says the same of its TIFF.
    image = pyvips.Image.new_from_file(str(made / "image.tif"))
    said = capsys.readouterr().out
    assert f"{image.width}, 3)] at {1e3 / image.xres:g} µm" in said
    nearest = shown["generated"][:, 2 * side : 3 * side].astype(float)
    assert np.abs(image.numpy().astype(float) - nearest).mean() < 6


def test_the_page_shows_all_of_them():
    page = tutorial.PAGE.read_text("utf-8")
    for name in tutorial.PICTURES:
        assert f"](../../.assets/tutorial_{name}.jpg)" in page
        assert f'folder / "{name}.png"' in page
