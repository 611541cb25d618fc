"""What the source of a config file says of its keys: the comments above them."""

import ast
import io
import pathlib
import tokenize
from collections.abc import Mapping


def comments(path: pathlib.Path) -> dict[str, str]:
    """Dotted key → the comment above its first assignment in `get_config`, "" where there is none.

    Sections are keys too. The file is read and not run: functions that make sections are followed
    by their names, and so are local names of sections.
    """
    return _Source(path.read_text(encoding="utf-8")).read("get_config", "")


def about(path: pathlib.Path) -> str:
    """The first line of a file's docstring."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return text.partition("\n")[0]


class _Source:
    def __init__(self, text: str):
        self._functions = {
            node.name: node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)
        }
        tokens = tokenize.generate_tokens(io.StringIO(text).readline)
        self._comments = {
            t.start[0]: t.string.lstrip("# ")
            for t in tokens
            if t.type == tokenize.COMMENT and t.line.lstrip().startswith("#")
        }

    def read(self, function: str, prefix: str) -> dict[str, str]:
        """The keys that a function makes below a section."""
        sections: dict[str, str] = {}
        of_keys: dict[str, str] = {}
        for node in self._functions[function].body:
            if not isinstance(node, ast.Assign):
                continue
            target = node.targets[0]
            key = _resolved(target, sections, prefix)
            if isinstance(target, ast.Name):
                is_section = bool(_dotted(node.value))
                key = _resolved(node.value, sections, prefix) if is_section else prefix
                sections[target.id] = key
            elif self._above(node.lineno) or key not in of_keys:
                of_keys[key] = self._above(node.lineno)
            maker = _maker(node.value)
            if maker in self._functions:
                of_keys |= {k: v for k, v in self.read(maker, key).items() if k not in of_keys}
        return of_keys

    def _above(self, line: int) -> str:
        first = line
        while first - 1 in self._comments:
            first -= 1
        return "\n".join(self._comments[n] for n in range(first, line))


def _maker(value: ast.expr) -> str:
    """The name of the function whose result a value is."""
    is_call = isinstance(value, ast.Call) and isinstance(value.func, ast.Name)
    return value.func.id if is_call else ""


def _dotted(node: ast.expr) -> list[str]:
    """The names of `a.b.c`; nothing of another expression."""
    if isinstance(node, ast.Name):
        return [node.id]
    if isinstance(node, ast.Attribute) and (before := _dotted(node.value)):
        return [*before, node.attr]
    return []


def _resolved(node: ast.expr, sections: Mapping[str, str], prefix: str) -> str:
    """The key that `a.b.c` is, where `a` is a section."""
    name, *rest = _dotted(node) or [""]
    return ".".join(part for part in (sections.get(name, prefix), *rest) if part)
