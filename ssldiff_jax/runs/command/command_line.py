"""From the words of a command to a config and a work directory, before jax is imported: what is
misspelt is reported at once, and nothing is written."""

import contextlib
import dataclasses
import difflib
import os
import pathlib
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from ssldiff_jax.core import addresses, schema
from ssldiff_jax.runs.command import catalog, listing, scales, shipped
from ssldiff_jax.runs.config import runtime as runtime_config
from ssldiff_jax.runs.workdir import stored_config

USAGE = """\
python -m ssldiff_jax.main --config=configs/NAME.py [--workdir=FOLDER] [--config.KEY=VALUE …]
python -m ssldiff_jax.main --workdir=FOLDER [--config.KEY=VALUE …]    # with the config of that run
python -m ssldiff_jax.main --workdir=NEW --config.models=RUN --config.stages=generate    # or of RUN
python -m ssldiff_jax.main --list[=stages|configs|keys|KEY]"""


class CommandError(ValueError):
    """A command that cannot be run; the message is one line, except for requested lists."""


@dataclasses.dataclass(frozen=True)
class Command:
    """What is to be run and where; `values` are not checked but for the names of keys and stages,
    and for `runtime`, which is read before jax is set up; `words` are the command's own, without
    the program's."""

    values: dict[str, Any]
    workdir: pathlib.Path
    runtime: runtime_config.RuntimeConfig
    words: tuple[str, ...]


def parse(argv: list[str]) -> Command | str:
    """The command that `argv` gives, its first word the program's; or a text that it asks for.

    Without --workdir a config runs in `runs/NAME`; without --config a run's own is taken, or in a
    new work directory that of the run which --config.models names; its stages are those of the last
    command, and nothing is forced. Raises CommandError.
    """
    if {"-h", "--help", "--helpshort", "--helpfull"} & set(argv[1:]):
        return "\n".join((USAGE, "", *listing.lines("stages"), *listing.lines("configs")))
    _require_known_flags(argv)
    path, workdir, list_what = (_value(argv, name) for name in ("config", "workdir", "list"))
    if list_what is not None:
        return "\n".join(_listed(list_what, path))
    if path is not None:
        # A shell leaves the ~ of --flag=~/… as it is.
        path = shipped.found(os.path.expanduser(path))
        # Configs import ml_collections alone: a command that is misspelt is answered before jax is
        # imported.
        values = _read(argv, path)
        folder = pathlib.Path(workdir or shipped.default_workdir(path)).expanduser()
    elif workdir:
        folder = pathlib.Path(workdir).expanduser()
        models = _value(argv, "config.models")
        is_new = models and not (folder / "config.json").exists()
        run = _of_run(models, "config.models") if is_new else _of_run(workdir, "--workdir")
        values = _read(argv, None, run)
    else:
        raise CommandError(
            "--config must name a config, such as configs/demo.py, or --workdir a run, got "
            "neither; --list shows configs, stages and keys"
        )
    values = scales.in_microns(values, said=_changed_keys(argv))
    _check(values, folder)
    runtime = values.get("runtime", {})
    runtime = schema.build(runtime_config.RuntimeConfig, runtime, "config.runtime")
    return Command(values, folder, runtime, tuple(argv[1:]))


def of_config(config: str) -> dict[str, Any]:
    """The values of a config that is named as after --config: `configs/tcga.py:paper`.

    Raises CommandError for a file that is not there or no config.
    """
    return _read([""], shipped.found(os.path.expanduser(config)))


def near(word: str, known: Iterable[str], *, before: str = "") -> str:
    """A hint that names what is spelt like `word`, or all that is known."""
    known = sorted(known)
    matches = difflib.get_close_matches(word, known, n=3, cutoff=0.5)
    if matches:
        return f"; did you mean {' or '.join(before + name for name in matches)}?"
    return f"; there are {', '.join(before + name for name in known)}" if known else ""


def _require_known_flags(argv: list[str]) -> None:
    known = ("--config", "--workdir", "--list", "--help")
    for word in argv[1:]:
        name = f"--{word.lstrip('-').partition('=')[0]}"
        if word.startswith("-") and name not in known and not name.startswith("--config."):
            raise CommandError(f"expected one of {', '.join(known)}, got {word}{near(name, known)}")


def _value(argv: list[str], name: str) -> str | None:
    """The last value of a flag, `--name=value` or `--name value`; "" where it has none."""
    last = None
    # As absl does: the last one counts.
    for i, word in enumerate(argv):
        key, equals, value = word.partition("=")
        if _is_flag(key, name):
            last = value if equals else "".join(argv[i + 1 : i + 2])
    return last


def _is_flag(word: str, name: str) -> bool:
    return word.startswith("-") and word.lstrip("-") == name


def _config_first(argv: list[str], path: str) -> list[str]:
    """The words with --config before all that changes it, as ml_collections wants them."""
    others, follows = argv[:1], False
    for word in argv[1:]:
        # `--config FILE` is two words, of which the second goes along.
        if not follows and not _is_flag(word.partition("=")[0], "config"):
            others.append(word)
        follows = not follows and _is_flag(word, "config")
    return [*others[:1], f"--config={path}", *others[1:]]


def _listed(what: str, config: str | None) -> list[str]:
    values = of_config(config) if config else None
    try:
        return listing.lines(what, values)
    except ValueError as error:
        raise CommandError(str(error)) from None


def _read(
    argv: list[str], path: str | None, run: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The config of a file, or of a run, with what the command changes."""
    if any(_changed_keys(argv)):
        # Looked up first: what ml_collections says of an unknown key names none that is near.
        _require_keys(_changed_keys(argv), _read(argv[:1], path, run))
    # Of its own: absl's global flags are whoever's imported this.
    flag_values = flags.FlagValues()
    if run is None:
        _require_config(path)
        argv = _config_first(argv, path)
        config_flags.DEFINE_config_file("config", flag_values=flag_values, sys_argv=argv)
    else:
        config_flags.DEFINE_config_dict(
            "config", _as_config(run), flag_values=flag_values, sys_argv=argv
        )
    flags.DEFINE_string("workdir", None, "Where everything is written.", flag_values=flag_values)
    try:
        with shipped.importable(path) if path else contextlib.nullcontext():
            others = flag_values(argv)[1:]
    except flags.Error as error:
        file, _, mode = (path or "").partition(":")
        if mode and "get_config() takes 0 positional" in str(error):
            raise CommandError(f"{file} must have no mode, got {mode!r}") from error
        raise CommandError(_line(error)) from error
    except Exception as error:  # whatever the code of a config raises
        raise CommandError(
            f"{path} must be a config, got {type(error).__name__}: {_line(error)}"
        ) from error
    if others:
        raise CommandError(f"expected flags only, --NAME=VALUE, got {' '.join(others)}")
    return flag_values.config.to_dict()


def _changed_keys(argv: list[str]) -> list[str]:
    """The keys that a command sets, as it spells them."""
    names = (word.partition("=")[0].lstrip("-") for word in argv[1:] if word.startswith("-"))
    return [name.removeprefix("config.") for name in names if name.startswith("config.")]


def _require_keys(keys: Iterable[str], values: Mapping[str, Any]) -> None:
    known = schema.flatten(values)
    for key in keys:
        if any(name.startswith(f"{key}.") for name in known):
            raise CommandError(
                f"config.{key} is a section of keys, which are set one by one; "
                f"--list={key} shows them"
            )
        if key.partition("[")[0] not in known:  # of tuples, parts too
            hint = near(f"config.{key}", (f"config.{name}" for name in known))
            raise CommandError(f"config.{key} is no config key{hint}")


def _line(error: Exception) -> str:
    text = str(error)
    if "Traceback (most recent" in text:  # ml_collections quotes whole ones
        text = text.strip().splitlines()[-1]
    return " ".join(text.split())


def _require_config(path: str) -> None:
    file = pathlib.Path(path.partition(":")[0])
    if file.is_file():
        return
    folder = file.parent if file.parent.is_dir() and file.parent.name else shipped.CONFIGS
    prefix = "configs/" if folder == shipped.CONFIGS else f"{folder}/"
    # By this name those of the package are found too.
    folders = {folder, shipped.CONFIGS} if prefix == "configs/" else {folder}
    names = {p.name for where in folders for p in where.glob("*.py")}
    raise CommandError(
        f"--config must be a config file, got {path!r}: no such file"
        f"{near(file.stem + '.py', names, before=prefix)}"
    )


def _of_run(named: str, by: str) -> Mapping[str, Any]:
    """The config of a run that a flag names; stages that were run again keep their config."""
    addresses.require_folders({by: named})
    folder = pathlib.Path(named).expanduser()
    path = folder / "config.json"
    if not path.is_file():
        unless = "without --config, " if by == "--workdir" else ""
        raise CommandError(
            f"{unless}{by} must be a run, with a config.json, got {folder}{_beside(folder)}"
        )
    try:
        values = stored_config.of_run(folder)
    except (OSError, ValueError) as error:
        raise CommandError(_line(error)) from error
    # What was forced once is not forced by every later command.
    return values | {"force": ""}


def _as_config(value: Any) -> Any:
    """A config tree from JSON, which knows no tuples."""
    if isinstance(value, Mapping):
        return ConfigDict({name: _as_config(part) for name, part in value.items()})
    return tuple(map(_as_config, value)) if isinstance(value, list) else value


def _beside(folder: pathlib.Path) -> str:
    """A hint that names the runs beside a folder that is none."""
    runs = [p.parent.name for p in folder.parent.glob("*/config.json")]
    return near(folder.name, runs, before=f"{folder.parent}/" if runs else "")


def _has_models(values: dict[str, Any]) -> bool:
    """Whether a config names the models of another run, or files that are used as they are."""
    denoiser = values["denoiser"]
    return bool(values["models"] or (denoiser["weights"] and not denoiser["train"]["num_steps"]))


def _check(values: dict[str, Any], folder: pathlib.Path) -> None:
    archive = values["data"]["archive"]
    addresses.require_folders(
        {"--workdir": folder, "config.models": values["models"], "config.data.archive": archive}
    )
    for what in ("stages", "force"):
        catalog.require_known(catalog.split(values[what]), what)
    if not catalog.split(values["stages"]):
        raise CommandError("\n".join(("config.stages must name stages, got none; there are",
                                      *catalog.lines())))  # fmt: skip
    catalog.is_apart(values)
    _require_writable(folder)
    is_cut = (folder / "patches" / "done.json").exists()
    if catalog.asks_for(values, "patches") and not values["data"]["slides"] and not is_cut:
        raise CommandError(catalog.NO_SLIDES)
    if catalog.reads_alone(values) and not _has_models(values) and not folder.is_dir():
        raise CommandError(
            f"--workdir must be a run that {values['stages']} can read, got {folder}: no such "
            f"folder{_beside(folder)}"
        )


def _require_writable(folder: pathlib.Path) -> None:
    path = folder.absolute()
    # The folder itself may still have to be made.
    there = next(p for p in (path, *path.parents) if p.exists())
    if not there.is_dir():
        raise CommandError(f"--workdir must be a folder, got {folder}: {there} is a file")
    if not os.access(there, os.W_OK):
        raise CommandError(f"--workdir must be writable, got {folder}: {there} is not")


def main(argv: list[str]) -> Command:
    """The command; a requested list is printed, an error reported in one line, and both end
    the process."""
    try:
        parsed = parse(argv)
    except ValueError as error:
        sys.exit(f"error: {error}")
    if isinstance(parsed, str):
        with contextlib.suppress(BrokenPipeError):
            print(parsed, flush=True)
            sys.exit(0)
        # A reader such as `head` left: nothing is lost, and the end shall not write again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    return parsed
