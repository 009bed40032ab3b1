"""Turns a failed check of a zoo file into one sentence with file, line, key and the nearest known key."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from diffusiongpt.errors import ZooError

Location = tuple[str | int, ...]


def explain(error: ValidationError, text: str, path: Path) -> ZooError:
    """The first problem of a zoo file as a `ZooError`; further ones are counted."""
    problems = error.errors()
    first = problems[0]
    location = tuple(first["loc"])
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    where = f"{path}:{line_of(text, location)}"
    key = ".".join(str(part) for part in location)
    if first["type"] == "extra_forbidden":
        known = _known_keys(location[:-1])
        near = get_close_matches(str(location[-1]), known, n=1, cutoff=0.5)
        hint = f"Did you mean {near[0]!r}?" if near else f"Known keys here: {', '.join(known)}."
        return ZooError(f"{where}: unknown key {key!r}{more}", hint=hint)
    message = first["msg"].removeprefix("Value error, ")
    return ZooError(f"{where}: {key}: {message}{more}", hint=f"The value there is {_shorten(first.get('input'))}.")


def line_of(text: str, location: Location) -> int:
    """Line, from 1, of a key in YAML text; the line of the nearest enclosing entry if the key is not there."""
    from ruamel.yaml import YAML

    node: Any = YAML(typ="rt", pure=True).load(text)
    line = 0
    for part in location:
        try:
            line = node.lc.key(part)[0] if isinstance(part, str) else node.lc.item(part)[0]
            node = node[part]
        except (AttributeError, KeyError, IndexError, TypeError):
            break
    return line + 1


def _known_keys(location: Location) -> list[str]:
    from diffusiongpt.zoo import ZooFile

    model: type[BaseModel] = ZooFile
    for part in location:
        if isinstance(part, str) and part in model.model_fields:
            model = _model_in(model.model_fields[part].annotation) or model
    return list(model.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (_model_in(argument) for argument in get_args(annotation))
    return next((model for model in found if model), None)


def _shorten(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
