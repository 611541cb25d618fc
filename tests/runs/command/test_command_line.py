import json

import numpy as np
import openslide
import pytest
from PIL import Image

import ssldiff_jax
from ssldiff_jax.runs import stage
from ssldiff_jax.stages import table

pytestmark = pytest.mark.e2e

CELLS, PATCH_PX = 2, 64
SAMPLER_ROWS = {
    f"sampler/{row}"
    for row in (
        *(
            f"{mode}/128/{n}"
            for mode in ("offset", "paper")
            for n in ("unet_forwards", "decoder_calls", "seconds")
        ),
        *(f"offset/128/{n}_bytes" for n in ("canvas", "peak", "peak_beyond_canvas", "before")),
        *(f"paper_over_ours/128/{n}" for n in ("unet_forwards", "seconds")),
    )
}
TRAINING_ROWS = {
    f"train/denoiser/{count}/{n}"
    for count in (8, 4)
    for n in ("rate", "model_flops", "of_matmul_rate")
}
ALL = stage.parse_names("all", table.STAGES, "stages")
STEPS = [name for name in ALL if not table.STAGES[name].tool]


def read(path):
    return json.loads(path.read_text())


ARCHIVE_ROWS = {
    f"archive/{name}" for name in ("tiled_per_core", "tiling_memory", "bytes", "hashed_per_core",
                                   "decoded_per_core", "read_at_random")
}  # fmt: skip


def test_bench_measures_the_denoiser(command, tmp_path):
    done = command(
        tmp_path,
        "--config.stages=bench",
        "--config.bench.sizes=(128,)",
        "--config.bench.paper_steps=1",
        "--config.bench.parts=('network','weights','archive','input','images','training')",
        "--config.bench.batch_size=(0,4)",
    )
    assert done.returncode == 0, done.stderr[-3000:]
    rows = read(tmp_path / "bench" / "results.json")
    assert {row["name"] for row in rows} >= {
        "unet/forward_batch_1", "unet/forward_batch_8", "unet/compiled_flops_batch_1",
        "unet/compiled_flops_batch_8", "weights/load",
        "weights/peak", "input/cached", "input/jpeg_per_core", *ARCHIVE_ROWS, *SAMPLER_ROWS,
        "device/bf16_matmul", *TRAINING_ROWS,
    }  # fmt: skip
    values = {row["name"]: row["value"] for row in rows}
    # 25 windows in four chunks of 8, 50 steps, guided; 9 in two, three steps of which the third, at
    # t = 330, is among the 400 that are not.
    assert values["sampler/paper/128/unet_forwards"] == 50 * 32 * 2
    assert values["sampler/offset/128/unet_forwards"] == (2 + 2 + 1) * 16
    # A CPU is host and device, and programs may have been compiled before.
    may_be_zero = ("/device_waits", "/compile", "/load_compiled")
    assert all(row["value"] > 0 or row["name"].endswith(may_be_zero) for row in rows)
    assert all(row["hardware"] and row["unit"] and not row["failed"] for row in rows)


def test_every_stage_is_done(workdir):
    for name in ALL:
        done = read(workdir / name / "done.json")
        assert {"digest", "seconds", "peak_rss_mb", "versions", "facts"} <= done.keys()
    assert (workdir / "patches" / "quarantine.jsonl").read_text() == ""


def test_run_is_written_down(workdir):
    config = read(workdir / "config.json")
    assert config["denoiser"]["train"]["num_steps"] == 4
    environment = read(workdir / "environment.json")
    assert environment["versions"]["jax"]
    assert environment["versions"]["ssldiff_jax"] == ssldiff_jax.__version__
    assert environment["machine"]["cores"] >= 1
    for name in ("encoder", "autoencoder", "denoiser", "judge"):
        lines = [
            json.loads(x) for x in (workdir / name / "metrics.jsonl").read_text().split("\n")[:-1]
        ]
        assert [line["step"] for line in lines] == [2, 4]
        assert all(np.isfinite(line["loss"]) for line in lines)
        assert "kernel" in (workdir / name / "parameters.txt").read_text()
        assert list((workdir / name / "tensorboard").glob("events.*"))


def images_and_regions(workdir):
    read_image = lambda path: np.asarray(Image.open(path))
    return [
        (read_image(workdir / "sample" / f"image_{i}.png"),
         read_image(workdir / "patches" / f"region_{i}.png"))
        for i in range(2)
    ]  # fmt: skip


def test_metrics_of_embeddings_are_those_of_the_images(workdir, generator):
    """Computed again from the files: cosines of cells with those of their regions."""

    def unit(image):
        found = generator.embed(image).reshape(CELLS**2, -1)
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    pairs = images_and_regions(workdir)
    cosines = np.stack([unit(image) @ unit(region).T for image, region in pairs])
    matching = np.eye(CELLS**2, dtype=bool)
    metrics = read(workdir / "report" / "metrics.json")
    similarity = metrics["embedding_similarity"]
    assert similarity["mean"] == pytest.approx(cosines[:, matching].mean(), abs=1e-4)
    assert similarity["shuffled"] == pytest.approx(cosines[:, ~matching].mean(), abs=1e-4)
    nearest = cosines.argmax(axis=2) == np.arange(CELLS**2)
    assert metrics["cell_retrieval_top1"] == pytest.approx(nearest.mean())
    assert metrics["num_cells"] == nearest.size
    judge = read(workdir / "evaluate" / "results.json")["judge"]
    assert metrics["judge"].items() <= judge.items()
    assert metrics["judge"]["embedding_similarity"] != similarity


def test_metrics_of_pixels_are_those_of_the_images(workdir):
    """The layout, computed again from the files: mean colours of cells, each channel centred."""

    def colours(image):
        means = image.reshape(CELLS, PATCH_PX, CELLS, PATCH_PX, 3).mean(axis=(1, 3))
        return means - means.mean(axis=(0, 1))

    def correlation(turned):
        pairs = [(colours(a), turned(colours(b))) for a, b in images_and_regions(workdir)]
        cosine = lambda a, b: np.sum(a * b) / np.linalg.norm(a) / np.linalg.norm(b)
        return np.mean([cosine(a, b) for a, b in pairs])

    metrics = read(workdir / "report" / "metrics.json")
    layout = metrics["layout_correlation"]
    assert layout["identity"] == pytest.approx(correlation(lambda x: x), abs=1e-6)
    assert layout["transposed"] == pytest.approx(correlation(lambda x: x.swapaxes(0, 1)), abs=1e-6)
    results = read(workdir / "evaluate" / "results.json")
    assert metrics["seams"] == results["seams"]
    assert metrics["patch_borders"] == results["patch_borders"]
    for ruler in ("last_step", "worst_phase", "cell_borders"):
        for of in ("generated", "real"):
            assert metrics["seams"][ruler][of]["count"] == 2
    assert metrics["patch_borders"]["border"]["generated"]["count"] == 2 * CELLS**2
    autoencoder = read(workdir / "autoencoder" / "done.json")["facts"]
    assert metrics["reconstruction_psnr"] == autoencoder["psnr"]


def test_metrics_tell_what_the_run_cost(workdir):
    metrics = read(workdir / "report" / "metrics.json")
    assert set(metrics["stages"]) == set(ALL) - {"plan", "report"}
    for name, cost in metrics["stages"].items():
        done = read(workdir / name / "done.json")
        assert cost["seconds"] == done["seconds"]
        # With one token a cell and no student two steps have nothing to do.
        assert cost["seconds"] > 0 or name in ("tokens", "distill")
        assert cost["peak_rss_mb"] == done["peak_rss_mb"] > 100
    large = metrics["large_image"]
    assert (large["height"], large["width"]) == (CELLS * PATCH_PX, CELLS * PATCH_PX)
    # Three steps of nine windows in two chunks of eight, the last filled up; two of them guided.
    assert large["unet_forwards"] == (2 + 2 + 1) * 16
    assert large["decoder_calls"] == 1
    assert large["seconds"] > 0


def test_pictures_have_their_sizes(workdir):
    side = CELLS * PATCH_PX
    for name in ("image_0.png", "image_1.png", "patches_0.png", "patches_1.png"):
        assert Image.open(workdir / "sample" / name).size == (side, side)
    assert Image.open(workdir / "sample" / "variations.png").size == (5 * PATCH_PX, 2 * PATCH_PX)
    assert Image.open(workdir / "patches" / "region_1.png").size == (side, side)


def test_a_patch_and_a_region_are_varied(command, workdir, region):
    folder = workdir / "variations"
    done = command(workdir, "--config.stages=variations", "--config.variations.num_regions=1")
    assert done.returncode == 0, done.stderr[-3000:]
    sizes = {path.name: Image.open(path).size for path in folder.glob("*.png")}
    assert all(f"variations: {folder / name}\n" in done.stderr for name in sizes)
    side = CELLS * PATCH_PX
    assert sizes == {
        "real.png": (side, side),
        "patches.png": (5 * PATCH_PX, CELLS**2 * PATCH_PX),
        "region_0.png": (side, side),
    }
    np.testing.assert_array_equal(Image.open(folder / "real.png"), region)
    # One's own image, at the resolution of patches where it tells none; a patch has no region.
    mine = workdir.parent / "mine.png"
    Image.fromarray(region[:PATCH_PX, :PATCH_PX]).save(mine)
    done = command(workdir, "--config.stages=variations", f"--config.variations.image={mine}")
    assert done.returncode == 0, done.stderr[-3000:]
    assert sorted(path.name for path in folder.glob("*.png")) == ["patches.png", "real.png"]
    page = np.asarray(Image.open(folder / "patches.png"))
    assert page.shape == (PATCH_PX, 5 * PATCH_PX, 3)
    np.testing.assert_array_equal(page[:, :PATCH_PX], region[:PATCH_PX, :PATCH_PX])
    # What a later call asks of the run is unchanged.
    assert read(workdir / "config.json")["denoiser"]["train"]["num_steps"] == 4


def test_pyramid_carries_its_mpp_and_the_image(workdir):
    with openslide.OpenSlide(str(workdir / "sample" / "image_0.tif")) as slide:
        assert slide.dimensions == (CELLS * PATCH_PX,) * 2
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(0.5, rel=1e-3)
        pixels = np.asarray(slide.read_region((0, 0), 0, slide.dimensions))[..., :3].astype(int)
    image = np.asarray(Image.open(workdir / "sample" / "image_0.png")).astype(int)
    assert np.abs(pixels - image).mean() < 12  # JPEG inside


def test_report_stands(workdir):
    page = (workdir / "report" / "index.html").read_text()
    assert page.lstrip().lower().startswith("<!doctype html")
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_second_call_skips_everything(command, workdir):
    before = {name: (workdir / name / "done.json").read_bytes() for name in STEPS}
    result = command(workdir)
    assert result.returncode == 0
    for name in STEPS:
        assert f"stage {name} is done" in result.stderr
    *figures, page = [line.split(" ", 1)[1] for line in result.stderr.splitlines()[-4:]]
    assert page == f"report: {workdir / 'report' / 'index.html'}"
    shown = read(workdir / "report" / "figures.json")["figures"][:3]
    similarity = read(workdir / "evaluate" / "results.json")["embedding_similarity"]["mean"]
    assert f"{similarity:.2f}".replace("-", "−") in figures[0]
    for line, figure in zip(figures, shown, strict=True):
        assert line.startswith(f"report: {figure['name']}: ")
    assert before == {name: (workdir / name / "done.json").read_bytes() for name in STEPS}


def test_generator_draws_the_asked_size_from_its_seed(generator, region):
    grid = generator.embed(region)
    assert grid.shape == (CELLS, CELLS, 32)
    a, again, b = (generator.generate(grid, size=(96, 160), seed=s) for s in (0, 0, 1))
    assert a.image.shape == (96, 160, 3)
    assert a.image.dtype == np.uint8
    np.testing.assert_array_equal(a.image, again.image)
    assert (a.image != b.image).any()


def test_wrong_grid_or_size_is_refused(generator, region):
    grid = generator.embed(region)
    with pytest.raises(ValueError, match=r"\(rows, columns, 32\), got \(2, 2, 31\)"):
        generator.generate(grid[..., :31])
    for size in [(0, 160), (96, -5)]:
        with pytest.raises(ValueError, match=f"size must be at least 1 × 1 px, got {size[0]} × "):
            generator.generate(grid, size=size)
    grid[1, 0, 3] = np.nan
    with pytest.raises(ValueError, match=r"got 1 embeddings that are not, first \(1, 0\)"):
        generator.generate(grid)
    with pytest.raises(ValueError, match="must hold a cell of 64 px"):
        generator.embed(region[:40])


@pytest.mark.parametrize(
    ("flag", "typo", "nearest"),
    [
        ("--config.denoizer.train.num_steps=3", "denoizer", "denoiser"),
        ("--config.denoiser.train.num_step=3", "num_step", "num_steps"),
        ("--config.stages=sampel", "sampel", "sample"),
        ("--config.force=denoizer", "denoizer", "denoiser"),
    ],
)
def test_misspelt_word_gets_one_line(command, tmp_path, flag, typo, nearest):
    result = command(tmp_path / "run", flag)
    assert result.returncode == 1
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("error: ")
    assert typo in line
    assert nearest in line.partition("did you mean")[2]
    left = {path.name for path in (tmp_path / "run").glob("*")}
    assert left <= {"traceback.txt"}
