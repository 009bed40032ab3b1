"""The schedulers of the installed diffusers, read from its source: importing it would bring torch."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_CLASS = re.compile(r"^class (\w+)\([^)]*\bSchedulerMixin\b", re.MULTILINE)
_NEAR = 0.5
"""Similarity above which a name is offered in place of an unknown one."""


def check_scheduler(name: str, arguments: Mapping[str, Any]) -> None:
    """Refuse a scheduler that diffusers does not have, an argument that it does not take, or a value that is not one.

    Raises:
        ValueError: With the nearest name that exists.
    """
    known = _places()
    if name not in known:
        raise ValueError(f"{name!r} is not a scheduler of the installed diffusers{_offer(name, [*known])}")
    taken = _arguments(known[name], name)
    for argument, value in arguments.items():
        if argument not in taken:
            raise ValueError(f"{name} takes no argument {argument!r}{_offer(argument, [*taken])}")
        allowed = taken[argument]
        if allowed and value not in allowed:
            wanted = " or ".join(map(str, allowed))
            raise ValueError(f"{argument!r} of {name} is {wanted}, not {str(value)[:60]!r}")


def _offer(name: str, known: list[str]) -> str:
    near = get_close_matches(name, known, n=1, cutoff=_NEAR)
    return f"; the nearest is {near[0]!r}" if near else ""


@cache
def _places() -> Mapping[str, Path]:
    """Scheduler -> the file with its class."""
    spec = find_spec("diffusers")
    roots = [Path(root) for root in (spec.submodule_search_locations or ())] if spec else []
    shown = "".join((root / "__init__.py").read_text(encoding="utf-8") for root in roots)
    files = [file for root in roots for file in sorted(root.glob("schedulers/scheduling_*.py"))]
    found = {name: file for file in files for name in _CLASS.findall(file.read_text(encoding="utf-8"))}
    return {name: file for name, file in found.items() if f'"{name}"' in shown}


@cache
def _arguments(file: Path, name: str) -> Mapping[str, tuple[Any, ...]]:
    """Argument -> the values that it may have; empty where its type does not list them."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    body = next(node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)
    made = next((node for node in body if isinstance(node, ast.FunctionDef) and node.name == "__init__"), None)
    found = [*made.args.args[1:], *made.args.kwonlyargs] if made else []
    return {one.arg: _listed(one.annotation) for one in found}


def _listed(annotation: ast.expr | None) -> tuple[Any, ...]:
    """The values of a `Literal`; empty for any other type."""
    if not isinstance(annotation, ast.Subscript) or ast.unparse(annotation.value) != "Literal":
        return ()
    inside = annotation.slice
    values = inside.elts if isinstance(inside, ast.Tuple) else [inside]
    return tuple(value.value for value in values if isinstance(value, ast.Constant))
