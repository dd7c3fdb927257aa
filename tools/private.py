"""Names that only their own module uses, and that do not begin with an underscore: `python tools/private.py` lists them.

A name counts as used elsewhere where another module of src, benchmarks or tools imports it, reads it from its module, or
names it in a string (tables of lazy packages, entry points, `module:function`), and where documentation gives its full
name. Tests do not count: what only a test uses is private as well.
"""

from __future__ import annotations

import ast
import re
import runpy
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_HOUSE = runpy.run_path(str(ROOT / "tools" / "house.py"))
_MADE = ("TypeVar", "NewType", "namedtuple", "NamedTuple", "ParamSpec")  # their first argument is their name


def lonely() -> dict[str, list[str]]:
    """Module > names that nobody else uses."""
    known: dict[str, ast.Module] = _HOUSE["modules"]()
    others = [ast.parse(path.read_text()) for part in ("benchmarks", "tools") for path in _files(part)]
    said = _said(known, others)
    taken = _imported(list(known.items()) + [("", tree) for tree in others], known)
    found = {}
    for module, tree in known.items():
        listed = _HOUSE["listed_names"](tree) or set()
        fixed = listed | _made(tree) | {name for home, name in taken if home == module}
        names = sorted(n for n in _HOUSE["shared_names"](tree) - fixed if not _is_said(module, n, said))
        if names and not (ROOT / "src" / module.replace(".", "/") / "__init__.py").exists():
            found[module] = names
    return found


def _files(part: str) -> list[Path]:
    return sorted((ROOT / part).rglob("*.py"))


def _imported(trees: list[tuple[str, ast.Module]], known: dict[str, ast.Module]) -> set[tuple[str, str]]:
    """Pairs of a module and a name that another module takes from it."""
    found = set()
    for own, tree in trees:
        aliases: dict[str, str] = {}
        for node in ast.walk(tree):
            for home, name, alias in _takes(node):
                if f"{home}.{name}" in known:
                    aliases[alias] = f"{home}.{name}"
                elif home != own:
                    found.add((home, name))
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute):
                path = ast.unparse(node.value)
                home = aliases.get(path, path)
                if home != own:
                    found.add((home, node.attr))
    return found


def _takes(node: ast.AST) -> Iterator[tuple[str, str, str]]:
    """Home, name and alias of what an import statement takes."""
    if isinstance(node, ast.ImportFrom) and node.module and not node.level:
        for one in node.names:
            yield node.module, one.name, one.asname or one.name
    if isinstance(node, ast.Import):
        for one in node.names:
            home, _, name = one.name.rpartition(".")
            yield home, name, one.asname or one.name


def _said(known: dict[str, ast.Module], others: list[ast.Module]) -> set[str]:
    """Strings of code, and full names in documentation and in pyproject.toml."""
    nodes = (node for tree in [*known.values(), *others] for node in ast.walk(tree))
    strings = {n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)}
    texts = [(ROOT / "pyproject.toml").read_text(), *(p.read_text() for p in (ROOT / "docs").rglob("*.md"))]
    return {s for s in strings if len(s) < 120} | {w for t in texts for w in re.findall(r"\w+[.:][\w.:]+", t)}


def _is_said(module: str, name: str, said: set[str]) -> bool:
    return bool(said & {name, f"{module}.{name}", f"{module}:{name}"}) or any(
        text.endswith(f":{name}") for text in said
    )


def _made(tree: ast.Module) -> set[str]:
    """Names whose value has to be told its own name."""
    calls = [n for n in tree.body if isinstance(n, ast.Assign) and isinstance(n.value, ast.Call)]
    return {
        target.id
        for node in calls
        for target in node.targets
        if isinstance(target, ast.Name) and ast.unparse(node.value.func).split(".")[-1] in _MADE
    }


if __name__ == "__main__":
    for module, names in lonely().items():
        print(f"{module}: {', '.join(names)}")
