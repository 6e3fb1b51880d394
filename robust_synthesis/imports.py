"""Which modules a program needs, found in its source and theirs without running any of it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path


def closure(program: Path, package: Path) -> list[Path]:
    """Files of `package` that a program imports, at its top or inside functions, directly or through one another; sorted.

    Imports that only type checkers see do not count.
    """
    found: dict[str, Path] = {}
    waiting = list(imported(program, ()))
    while waiting:
        name = waiting.pop()
        path = _file(name, package)
        if path is None or name in found:
            continue
        found[name] = path
        parts = tuple(name.split("."))
        waiting += [".".join(parts[:-1]), *imported(path, parts if path.stem == "__init__" else parts[:-1])]
    return sorted(found.values())


def imported(path: Path, package: tuple[str, ...]) -> Iterator[str]:
    """Full names of what a file of `package` imports; for `from a import b` both a and a.b, of which one may be no module."""
    waiting: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"), str(path))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            source = ".".join((*above, *([node.module] if node.module else [])))
            yield source
            yield from (f"{source}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            waiting += node.orelse
        else:
            waiting += ast.iter_child_nodes(node)


def _file(name: str, package: Path) -> Path | None:
    first, *rest = name.split(".")
    if first != package.name:
        return None
    place = package.joinpath(*rest)
    candidates = [place / "__init__.py", *([place.with_name(f"{place.name}.py")] if rest else [])]
    return next((path for path in candidates if path.is_file()), None)
