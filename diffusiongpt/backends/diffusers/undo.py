"""Modules as they were, after a user had them."""

from __future__ import annotations

from collections import OrderedDict
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


@contextmanager
def undone(roots: Iterable[Any]) -> Iterator[None]:
    """Undo whatever the block sets on modules: hooks, tiling, attention processors, adapters, even other classes.

    All of it lies in the attributes of the modules and in the tables among them, which are copied before (some
    milliseconds for a thousand modules). Values that are written into tensors stay.
    """
    saved = [(module, type(module), _copy(vars(module))) for root in roots for module in root.modules()]
    try:
        yield
    finally:
        for module, kind, attributes in saved:
            # past the module's own way to set attributes, which sorts modules and parameters into tables
            object.__setattr__(module, "__class__", kind)
            present = vars(module)
            present.clear()
            for name, (value, table) in attributes.items():
                if table is not None:
                    value.clear()
                    value.update(table)
                present[name] = value


def writes(roots: Iterable[Any]) -> int:
    """How often the tensors of modules have been written into in place; torch counts it for each of them."""
    return sum(tensor._version for root in roots for tensor in (*root.parameters(), *root.buffers()))  # noqa: SLF001  # torch has no public name


def _copy(attributes: dict[str, Any]) -> dict[str, tuple[Any, dict[Any, Any] | None]]:
    return {
        name: (value, dict(value) if type(value) in (dict, OrderedDict) else None) for name, value in attributes.items()
    }
