"""What the source of a config file says of its keys: the comments above them."""

import ast
import io
import pathlib
import tokenize
from collections.abc import Mapping


def comments(path: pathlib.Path) -> dict[str, str]:
    """Dotted key → the comment above its first assignment in `get_config`, "" where there is none.

    Sections are keys too. Files are read and not run: functions that make sections are followed by
    their names, into modules that are imported from the same package, and so are local names of
    sections.
    """
    return _Source(path).read("get_config", "")


def about(path: pathlib.Path) -> str:
    """The first line of a file's docstring."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return text.partition("\n")[0]


class _Source:
    def __init__(self, path: pathlib.Path):
        text = path.read_text(encoding="utf-8")
        body = ast.parse(text).body
        self._functions = {node.name: node for node in body if isinstance(node, ast.FunctionDef)}
        self._modules = {
            alias.asname or alias.name: file
            for node in body
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
            if (file := _module_file(path, f"{node.module}.{alias.name}")) is not None
        }
        # ast knows no comments.
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
            returned = self._made(node.value, key)
            of_keys |= {k: v for k, v in returned.items() if k not in of_keys}
        return of_keys

    def _made(self, value: ast.expr, key: str) -> dict[str, str]:
        """The keys of a section that a function makes, of this file or of one it imports."""
        *module, maker = (isinstance(value, ast.Call) and _dotted(value.func)) or [""]
        if not module and maker in self._functions:
            return self.read(maker, key)
        if len(module) == 1 and module[0] in self._modules:
            return _Source(self._modules[module[0]]).read(maker, key)
        return {}

    def _above(self, line: int) -> str:
        first = line
        while first - 1 in self._comments:
            first -= 1
        return "\n".join(self._comments[n] for n in range(first, line))


def _module_file(path: pathlib.Path, module: str) -> pathlib.Path | None:
    """The file of a module of the package that holds `path`."""
    package, *names = module.split(".")
    root = next((folder for folder in path.parents if folder.name == package), None)
    file = root.joinpath(*names).with_suffix(".py") if root and names else None
    return file if file and file.exists() else None


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
