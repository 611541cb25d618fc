import dataclasses
import importlib
import pathlib
from typing import Literal

import pytest

from ssldiff_jax.core import digests, schema
from ssldiff_jax.runs.config import run as stages_config


@dataclasses.dataclass(frozen=True)
class Leaf:
    rate: float
    kind: Literal["wide", "deep"] = "wide"
    limit: float | None = None


@dataclasses.dataclass(frozen=True)
class Tree:
    count: int
    leaf: Leaf
    sizes: tuple[int, ...] = (1, 2)
    name: str = "oak"

    def __post_init__(self):
        if self.count < 0:
            raise ValueError(f"count must not be negative, got count={self.count}")


def tree(**changes):
    return {"count": 3, "leaf": {"rate": 0.5}} | changes


def test_nested_sections_defaults_and_conversions():
    built = schema.build(Tree, tree(leaf={"rate": 2, "kind": "deep"}, sizes=[4, 5, 6]))
    assert built == Tree(3, Leaf(2.0, "deep"), (4, 5, 6))
    assert type(built.leaf.rate) is float
    assert type(built.sizes) is tuple


@pytest.mark.parametrize(("value", "expected"), [(None, None), (0.25, 0.25), (1, 1.0)])
def test_optional(value, expected):
    assert schema.build(Leaf, {"rate": 1.0, "limit": value}).limit == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cuont": 1}, r"config\.cuont is no config key; did you mean 'count'\?"),
        ({"leaf": {"rate": 1.0, "knid": 1}}, r"config\.leaf\.knid .*did you mean 'kind'\?"),
        ({"zzzz": 1}, r"config\.zzzz .*known: count, leaf, sizes, name"),
        ({"leaf": {}}, r"config\.leaf\.rate is missing"),
        ({"leaf": 3}, r"config\.leaf must be a section, got 3"),
        ({"count": 1.0}, r"config\.count must be int, got 1\.0"),
        ({"count": True}, r"config\.count must be int, got True"),
        ({"leaf": {"rate": "fast"}}, r"config\.leaf\.rate must be float, got 'fast'"),
        ({"leaf": {"rate": True}}, r"config\.leaf\.rate must be float, got True"),
        ({"leaf": {"rate": 1.0, "kind": "tall"}}, r"config\.leaf\.kind must be one of .*'tall'"),
        ({"leaf": {"rate": 1.0, "limit": "x"}}, r"config\.leaf\.limit must be float, got 'x'"),
        ({"sizes": 3}, r"config\.sizes must be a tuple, got 3"),
        ({"sizes": (1, "b")}, r"config\.sizes\[1\] must be int, got 'b'"),
        ({"name": 1}, r"config\.name must be str, got 1"),
        ({"count": -1}, r"config: count must not be negative, got count=-1"),
    ],
)
def test_what_does_not_fit_is_refused_by_its_dotted_path(changes, message):
    with pytest.raises(schema.ConfigError, match=message):
        schema.build(Tree, tree(**changes))


def test_nearest_path_knows_dotted_keys():
    hint = schema.nearest_path("leaf.rat", tree())
    assert hint == "; did you mean 'leaf.rate'?"


def test_flatten_names_every_leaf():
    assert schema.flatten(tree(sizes=(1,))) == {"count": 3, "leaf.rate": 0.5, "sizes": (1,)}


def test_digest_is_stable_and_tells_settings_apart():
    # Names of caches on disk: this literal may only change together with what they hold.
    assert digests.of_values({"a": 1, "b": (2, 3)}, "x") == "8d2d8ee6bd51"
    assert digests.of_values({"b": [2, 3], "a": 1}, "x") == digests.of_values(
        {"a": 1, "b": (2, 3)}, "x"
    )
    built = schema.build(Tree, tree())
    assert digests.of_values(built) == digests.of_values(schema.build(Tree, tree()))
    changed = [
        dataclasses.replace(built, count=4),
        dataclasses.replace(built, sizes=(2, 1)),
        dataclasses.replace(built, leaf=Leaf(0.5, "deep")),
    ]
    assert len({digests.of_values(c) for c in [built, *changed]}) == 4


SHIPPED = [
    "bach_study", "blue_marble", "card", "colorectal", "crc_study", "default", "demo", "earth",
    "eurosat", "naip", "naip_4band", "naip_demo", "naip_study", "one_gpu", "pixcell", "tcga",
    "tcga_brca_5x", "tcga_crc", "tcga_study", "tiny", "zoom_brca", "zoom_naip",
]  # fmt: skip


def test_all_shipped_configs_are_tested():
    folder = pathlib.Path(importlib.import_module("configs.default").__file__).parent
    assert sorted(path.stem for path in folder.glob("*.py") if path.stem != "__init__") == SHIPPED


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_configs_build(name):
    values = importlib.import_module(f"configs.{name}").get_config()
    for section in (values.encoder, values.judge, values.autoencoder, values.denoiser):
        if not section.train.num_steps:
            section.weights = "weights.safetensors"
    run = schema.build(stages_config.RunConfig, values.to_dict())
    patch_px = run.data.crops.patch_px
    assert run.encoder.model.vit.image_px == run.judge.model.vit.image_px == patch_px
    assert run.window * run.downsample_factor == patch_px


def test_a_published_encoder_asks_for_its_weights():
    values = importlib.import_module("configs.tcga_crc").get_config()
    with pytest.raises(schema.ConfigError, match="published encoder must have weights"):
        schema.build(stages_config.RunConfig, values.to_dict())
    values.encoder.weights, values.encoder.name = "weights.safetensors", "fikon"
    with pytest.raises(schema.ConfigError, match=r"one of hipt, .*phikon.*, got 'fikon'"):
        schema.build(stages_config.RunConfig, values.to_dict())


def pixcell(model="256", **changes):
    values = importlib.import_module("configs.pixcell").get_config(model)
    values.denoiser.weights = values.autoencoder.weights = "weights"
    values.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
    return schema.build(stages_config.RunConfig, values.to_dict())


def test_a_published_denoiser_needs_no_encoder_to_be_led_by_embeddings():
    run = pixcell("1024")
    assert run.denoiser.is_published
    assert not run.encoder.weights
    assert (run.window, run.cell_px, run.cells_are_tokens) == (128, 256, True)
    assert pixcell().cell_px == 256
    assert not pixcell().cells_are_tokens
    with pytest.raises(ValueError, match="takes 256 or 1024, got '512'"):
        pixcell("512")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"denoiser__train__num_steps": 5}, "published encoder must have weights"),
        (
            {"denoiser__control__weights": "net", "denoiser__network": "unet"},
            r"control must come with a transformer that is used as it is .*got network=unet",
        ),
        (
            {"denoiser__weights": "", "denoiser__train__num_steps": 5,
             "denoiser__lora__weights": "lora", "encoder__weights": "uni2"},
            r"config\.denoiser\.lora must come with denoiser\.weights",
        ),
        ({"autoencoder__weights": "", "autoencoder__train__num_steps": 5},
         r"latent_scaling=published must come with weights"),
        ({"embeddings__tokens_of": "squares", "embeddings__tokens_per_side": 3},
         r"tokens_per_side must divide the latents .*, 32 \(256 px\), got 3"),
        ({"embeddings__tokens_of": "squares", "encoder__name": "own", "encoder__weights": "w"},
         r"tokens_of=squares must come with a published encoder.*got encoder.name=own"),
        ({"embeddings__tokens_of": "squares", "embeddings__tokens_per_side": 4,
          "denoiser__train__num_steps": 5, "encoder__weights": "w", "judge__weights": "w"},
         r"must come with a published denoiser that is used as it is .*num_steps=5"),
    ],
)  # fmt: skip
def test_what_published_models_are_not_asked_for(changes, message):
    with pytest.raises(schema.ConfigError, match=message):
        pixcell(**changes)


def test_the_papers_sampling():
    values = importlib.import_module("configs.tcga").get_config("paper")
    run = schema.build(stages_config.RunConfig, values.to_dict())
    assert run.sample.solver.time_offset == 1
    assert run.window == run.sample.decode.tile == 64
    with pytest.raises(ValueError, match="no mode or paper, got 'papr'"):
        importlib.import_module("configs.tcga").get_config("papr")


@pytest.mark.parametrize("path", ["sede", "denoiser.unet.chanels", "sample.windows.strid"])
def test_unknown_keys_cannot_be_set(path):
    config = importlib.import_module("configs.demo").get_config()
    *sections, key = path.split(".")
    for section in sections:
        config = config[section]
    with pytest.raises((AttributeError, KeyError)):
        setattr(config, key, 1)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("encoder.model.vit.image_px", 128, "config.encoder.model.vit.image_px must equal"),
        ("data.crops.patch_px", 72, "patch_px must be"),
        ("denoiser.unet.latent_channels", 7, "latent_channels must equal"),
        ("denoiser.unet.conditioning", "film", "config.denoiser.unet.conditioning must be one of"),
        ("sample.decode.overlap", 48, "overlap must lie in"),
    ],
)
def test_sections_that_do_not_go_together_are_refused(path, value, message):
    config = importlib.import_module("configs.demo").get_config()
    config.update_from_flattened_dict({path: value})
    if path == "data.crops.patch_px":
        for name in ("encoder", "judge"):
            config[name].model.vit.update(image_px=value, patch_px=8)
    with pytest.raises(schema.ConfigError, match=message):
        schema.build(stages_config.RunConfig, config.to_dict())


def test_zoomldms_conditioner_is_a_unets():
    config = importlib.import_module("configs.zoom_brca").get_config()
    for section in (config.encoder, config.judge, config.autoencoder, config.denoiser):
        section.weights = "weights.safetensors"
    config.denoiser.network = "dit"
    message = r"conditioner\.name must be linear with config\.denoiser\.network=dit, got transf"
    with pytest.raises(schema.ConfigError, match=message) as caught:
        schema.build(stages_config.RunConfig, config.to_dict())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("section", ["sample", "prior"])
def test_a_solver_fits_its_schedule_before_anything_runs(section):
    config = importlib.import_module("configs.tiny").get_config().to_dict()
    solver = config[section]["solver"]
    for wrong, message in (
        ({"t_start": 1000}, r"\[0, 1000\), got t_start=1000"),
        ({"num_solver_steps": 1000, "t_start": 999, "spacing": "leading"}, r"\[1, 999\]"),
    ):
        values = config | {section: config[section] | {"solver": solver | wrong}}
        with pytest.raises(schema.ConfigError, match=f"config.{section}.*{message}"):
            schema.build(stages_config.RunConfig, values)
