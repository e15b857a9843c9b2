"""Which code a family's returns follow from, as a hash, so that scores of other code are found out."""

from __future__ import annotations

import ast
import hashlib
import importlib
import inspect
import json
import sys
from collections.abc import Iterator
from typing import Any

from mtenvs.spec import Family

SHARED = ("mtenvs.spec", "mtenvs.state")
"""What all families are made of: types, which decide no return by themselves."""
SILENT = ("published", "why", "decided")
"""Arguments of a ``Family`` that no return follows from: the list of tasks, and words about it."""


def family_code(family: Family) -> str:
    """SHA-256 of the code of a family's file, and of the files of mtenvs that it imports, but ``SHARED``.

    Comments, docstrings and line breaks do not count. Nor do the list of published tasks and what is said
    of it, or every new task would look like a change to the others: records keep each task's own
    parameters instead.
    """
    found: dict[str, Any] = {}
    waiting = [family.build.__module__]
    while waiting:
        name = waiting.pop()
        if name in found or name in SHARED:
            continue
        tree = ast.parse(inspect.getsource(importlib.import_module(name)))
        waiting += _imports(tree)
        found[name] = _essence(tree, _silent(tree))
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()


def _imports(tree: ast.Module) -> Iterator[str]:
    """Modules of mtenvs that a module imports."""
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            # `from mtenvs import blocks` names a module, `from mtenvs.rewards import namespace` does not
            dotted = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in sys.modules else str(node.module) for name in dotted]
        yield from (name for name in names if name.startswith("mtenvs."))


def _silent(tree: ast.Module) -> set[str]:
    """Names of what a module gives as :data:`SILENT` arguments, such as its ``Family(published=...)``."""
    arguments = [n.value for n in ast.walk(tree) if isinstance(n, ast.keyword) and n.arg in SILENT]
    return {value.id for value in arguments if isinstance(value, ast.Name)}


def _essence(value: Any, silent: set[str]) -> Any:
    """What counts of a syntax tree, as JSON; the same in every version of Python."""
    if isinstance(value, list):
        return [_essence(v, silent) for v in value if not _is_silent(v, silent)]
    if isinstance(value, ast.AST):
        # what is empty may be missing: later versions have fields that earlier ones do not
        fields = {k: _essence(v, silent) for k, v in ast.iter_fields(value) if v not in (None, [])}
        return {"": type(value).__name__, **fields}
    return repr(value)


def _is_silent(node: Any, silent: set[str]) -> bool:
    """Whether an element of a syntax tree decides nothing: a docstring, or a list of published tasks."""
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant)
    if isinstance(node, ast.keyword):
        return node.arg in SILENT
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return any(isinstance(target, ast.Name) and target.id in silent for target in targets)
