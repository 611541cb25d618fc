"""The repository on the path, JAX on the CPU, shapes checked while the tests run, and tensors
recorded from other implementations."""

import atexit
import dataclasses
import fcntl
import gc
import json
import os
import pathlib
import shutil
import signal
import sys
import tempfile
import typing

import beartype
import numpy as np
import patience
import psutil
import pytest
from jaxtyping import AbstractArray, install_import_hook

# A shell lets what it starts in the background ignore Ctrl-C, and so would all commands of tests.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

os.environ["JAX_PLATFORMS"] = "cpu"
# The suite's time is XLA compiling: small programs need no optimised code.
os.environ.setdefault(
    "XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
)
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    # The workers and the commands that tests start inherit it: each program is compiled once.
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="ssldiff_jax_compiled_")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

# An int is a float, as PEP 484 has it.
typecheck = beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))


def has_shape(hint) -> bool:
    """Whether an annotation is of an array, or of something that holds some."""
    if isinstance(hint, type) and issubclass(hint, AbstractArray):
        return True
    return any(map(has_shape, typing.get_args(hint)))


def shapecheck(function):
    """`typecheck` of arrays alone: tests give upper packages stand-ins of other things."""
    arrays = {name: hint for name, hint in function.__annotations__.items() if has_shape(hint)}
    if not arrays:
        return function
    function.__annotations__ = arrays
    return typecheck(function)


# Every sub-package; all types in those of the mathematics, which take nothing but values.
EVERY_TYPE = (
    "core", "formats", "encoders", "autoencoder", "diffusion", "prior", "sampler", "evaluation",
)  # fmt: skip
SHAPES = ("slides", "data", "weights", "train", "report", "runs", "generation", "stages")
for checker, packages in (("typecheck", EVERY_TYPE), ("shapecheck", SHAPES)):
    install_import_hook([f"ssldiff_jax.{package}" for package in packages], f"conftest.{checker}")


MOST_KEPT = 1.5 * 2**30
"""Bytes; a worker that holds more after a file of tests lets compiled programs go."""


def pytest_collection_modifyitems(items):
    """Files that start processes come first, then those that need a whole run: they take longest,
    and the short ones fill up what is left of the time."""

    def rank(item):
        starts = any(hasattr(item.module, name) for name in ("patience", "subprocess"))
        return 0 if starts else 1 if item.path in whole else 2

    runs = {"workdir", "command"}
    whole = {item.path for item in items if runs.intersection(item.fixturenames)}
    items.sort(key=rank)


@pytest.fixture(scope="module", autouse=True)
def let_programs_go():
    yield
    if psutil.Process().memory_info().rss < MOST_KEPT:
        return
    import jax

    from ssldiff_jax.core import memory

    jax.clear_caches()
    gc.collect()
    memory.give_back_freed()


@dataclasses.dataclass(frozen=True)
class Recorded:
    """What a public implementation computed: its description, weights, inputs and outputs."""

    spec: dict
    weights: dict[str, np.ndarray]
    inputs: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray]

    def image(self, name: str) -> np.ndarray:
        """An input or output as NHWC."""
        found = self.inputs.get(name, self.outputs.get(name))
        return np.moveaxis(found, 1, -1)


def golden_folder() -> pathlib.Path:
    """SSLDIFF_GOLDEN, or the small files that are part of the repository."""
    return pathlib.Path(os.environ.get("SSLDIFF_GOLDEN", pathlib.Path(__file__).parent / "golden"))


@pytest.fixture(scope="session")
def golden_path():
    """A function from a file's name to where it lies; skips where it is not at hand."""

    def find(name: str) -> pathlib.Path:
        path = golden_folder() / name
        if not path.exists():
            pytest.skip(f"{name}: SSLDIFF_GOLDEN must name a folder that has it")
        return path

    return find


@pytest.fixture(scope="session")
def golden(golden_path):
    """A function from a name to what is recorded under it; skips where that is not at hand."""
    from safetensors.numpy import load_file

    def read(name: str) -> Recorded:
        path = golden_path(f"{name}.safetensors")
        tensors = load_file(path)
        under = lambda prefix: {
            k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)
        }
        told = ("input.", "output.")
        weights = {k: v for k, v in tensors.items() if not k.startswith(told)}
        spec = json.loads(path.with_suffix(".json").read_text())
        return Recorded(spec, weights, under("input."), under("output."))

    return read


CLIP_WORDS = {"a": 3, "photo": 4, "of": 5, "lake": 6, "field": 7, "the": 8}
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "lake", "field", "in", "the", "west", "east"]


@pytest.fixture(scope="session")
def clip_folder(golden, tmp_path_factory):
    """A CLIP as transformers save it: recorded weights, a tokenizer of a few words."""
    import tokenizers
    from safetensors.numpy import save_file

    recorded, folder = golden("clip_hf"), tmp_path_factory.mktemp("clip")
    for name in ("config.json", "preprocessor_config.json"):
        (folder / name).write_text(json.dumps(recorded.spec[name]))
    words = {"[UNK]": 0, "<s>": 58, "</s>": 59} | CLIP_WORDS
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 58), ("</s>", 59)]
    )
    made.save(str(folder / "tokenizer.json"))
    save_file(dict(recorded.weights), folder / "model.safetensors")
    return folder


@pytest.fixture(scope="session")
def text_folder(golden, tmp_path_factory):
    """A text encoder as transformers save it: recorded weights, a tokenizer of ten words."""
    import tokenizers
    from safetensors.numpy import save_file

    recorded, folder = golden("bert_hf"), tmp_path_factory.mktemp("text")
    sizes = recorded.spec["config"]
    told = {
        "model_type": "bert",
        "hidden_act": "gelu",
        "vocab_size": sizes["vocab_size"],
        "hidden_size": sizes["width"],
        "num_hidden_layers": sizes["depth"],
        "num_attention_heads": sizes["num_heads"],
        "intermediate_size": sizes["mlp_width"],
        "max_position_embeddings": sizes["max_positions"],
    }
    (folder / "config.json").write_text(json.dumps(told))
    model = tokenizers.models.WordPiece({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]")
    made = tokenizers.Tokenizer(model)
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    made.save(str(folder / "tokenizer.json"))
    save_file(dict(recorded.weights), folder / "model.safetensors")
    return folder


def run_command(workdir, *flags, **environment):
    words = [sys.executable, "-m", "ssldiff_jax.main", "--config=configs/tiny.py"]
    return patience.run(
        [*words, f"--workdir={workdir}", *flags],
        cwd=pathlib.Path(__file__).parents[1],
        env=os.environ | {"JAX_PLATFORMS": "cpu"} | environment,
    )


@pytest.fixture(scope="session")
def command():
    """(workdir, *flags) → the finished process of main with configs/tiny.py."""
    return run_command


def refuse(workdir, *flags):
    from ssldiff_jax.runs import launch
    from ssldiff_jax.runs.command import command_line
    from ssldiff_jax.stages import table

    tiny = pathlib.Path(__file__).parents[1] / "configs" / "tiny.py"
    words = ["main", f"--config={tiny}", f"--workdir={workdir}", *flags]
    asked = command_line.parse(words)
    with pytest.raises((*launch.REFUSALS, *launch.USER_ERRORS)) as caught:
        launch.launch(asked.values, asked.workdir, table.STAGES)
    (line,) = str(caught.value).splitlines()
    return line


@pytest.fixture(scope="session")
def refusal():
    """(workdir, *flags) → the line that main ends with, configs/tiny.py run in this process: no
    other has to import jax only to say it."""
    return refuse


def shared_folder(tmp_path_factory):
    """What all workers of a session share."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


OPENED = "tiny_run_opened.txt"


@pytest.fixture(scope="session")
def workdir(tmp_path_factory):
    """A run of configs/tiny.py, whole: one worker makes it, each has a copy."""
    shared = shared_folder(tmp_path_factory)
    made = shared / "tiny_run"
    with (shared / "tiny_run.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            hook = pathlib.Path(__file__).parent / "opened_files"
            path = os.pathsep.join(filter(None, (str(hook), os.environ.get("PYTHONPATH"))))
            notes = {"PYTHONPATH": path, "OPENED_FILES": str(shared / OPENED)}
            result = run_command(shared / "tiny_run_in_work", **notes)
            assert result.returncode == 0, result.stderr[-3000:]
            (shared / "tiny_run_in_work").rename(made)
    folder = tmp_path_factory.mktemp("tiny") / "run"
    shutil.copytree(made, folder, symlinks=True)
    return folder


@pytest.fixture(scope="session")
def opened_folders(workdir, tmp_path_factory):
    """Of the run of configs/tiny.py: stage → folders of the work directory that it read from."""
    folders = {}
    for line in (shared_folder(tmp_path_factory) / OPENED).read_text().splitlines():
        stage, _, path = line.partition(" ")
        _, inside, rest = path.partition("/tiny_run_in_work/")
        if inside:
            folders.setdefault(stage, set()).add(rest.split("/")[0])
    return folders


@pytest.fixture(scope="session")
def generator(workdir):
    import ssldiff_jax

    return ssldiff_jax.Generator.load(workdir)


@pytest.fixture(scope="session")
def random_generator():
    """A generator of configs/tiny.py with random weights, without a run."""
    import random_models

    return random_models.make()


@pytest.fixture(scope="session")
def region(workdir):
    from ssldiff_jax.slides import pyramid

    return pyramid.read_image(workdir / "patches" / "region_0.png")
