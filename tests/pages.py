"""The pages of the repository, as a reader meets them: README.md first, then the others."""

import pathlib
import re
import shlex

ROOT = pathlib.Path(__file__).parents[1]
ELSEWHERE = {"runs", "vendor"}
"""Folders whose pages are not ours."""


def paths() -> list[pathlib.Path]:
    """Every page, README.md first."""
    inside = sorted(
        path
        for folder in ("ssldiff_jax", "configs", "launch", "tests")
        for path in (ROOT / folder).rglob("*.md")
        if not ELSEWHERE & set(path.relative_to(ROOT).parts)
    )
    return [ROOT / "README.md", *inside]


def name(path: pathlib.Path) -> str:
    """A page by its place, as test ids show it."""
    return str(path.relative_to(ROOT))


def texts() -> dict[str, str]:
    """Every page by its name."""
    return {name(path): path.read_text("utf-8") for path in paths()}


def blocks(text: str) -> list[tuple[str, str]]:
    """Language and code of each block."""
    return re.findall(r"```(\w*)\n(.*?)```", text, re.S)


def commands(text: str) -> list[str]:
    """Every command of a page, on one line each, in its order; comments stay."""
    code = "".join(code for language, code in blocks(text) if language == "bash")
    lines = code.replace("\\\n", " ").splitlines()
    return [" ".join(line.split()) for line in lines if line.strip()]


def all_commands() -> list[str]:
    """Those of all pages in their order, each once."""
    return list(dict.fromkeys(c for text in texts().values() for c in commands(text)))


def words(command: str) -> list[str]:
    """A command as a shell takes it apart."""
    return shlex.split(command, comments=True)


def rows(text: str, heading: str) -> list[str]:
    """The code in the first cells of the tables between a heading and the next of its depth."""
    depth = heading.partition(" ")[0]
    section = text.partition(f"\n{heading}\n")[2].partition(f"\n{depth} ")[0]
    return re.findall(r"^\| `([^`]+)`[^|]* \|", section, re.M)
