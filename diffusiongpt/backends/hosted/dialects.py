"""The servers of the OpenAI Images API that are known, as data: what each takes, and under which name."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache
from importlib import resources
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter

from diffusiongpt.errors import DrawError


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Mask(_Entry):
    """How a mask is sent.

    Attributes:
        field: Name of the file in the form.
        paints: What of it is painted: the transparent part of a PNG of the picture's size, or the white part.
    """

    field: str
    paints: Literal["transparent", "white"]


class Edits(_Entry):
    """What `/images/edits` of a server takes.

    Attributes:
        pictures: Most pictures that go in.
        mask: How a mask is sent; `None` if the server takes none.
    """

    pictures: int
    mask: Mask | None = None


class Order(_Entry):
    """A request about the server's memory.

    Attributes:
        method: HTTP method.
        path: Path below the root of the server.
        body: JSON object that is sent.
    """

    method: Literal["GET", "POST"] = "POST"
    path: str
    body: dict[str, Any] = {}


class Dialect(_Entry):
    """One kind of server.

    Attributes:
        title: What it is.
        sources: Where these facts are from.
        needs_key: Whether it draws only with a key.
        settings: What `settings.extra` of an expert may set; the rest is reported in `dropped`.
        edit_only: Those of them that `/images/edits` alone takes.
        not_for_edits: Those of them that it does not take.
        fixed: Fields that are always sent, unless `settings.extra` sets them.
        arguments: Our argument -> its name there; dots lead into an object.
        limits: Our argument -> the highest value that the server takes.
        in_prompt: Tag of a JSON object at the end of the prompt that holds the arguments; empty for the body.
        negative_after: What separates a negative prompt from the prompt; empty if it has a field of its own, or none.
        seeds_count_up: Whether picture `i` of a request is that of `seed + i`; else each is asked for by itself.
        most: Pictures that one request may ask for.
        streams: Whether it sends unfinished pictures as server-sent events.
        fetches: Whether its answers may name addresses on the server itself, which are fetched.
        transparent: Fields that ask for a transparent background; empty if there is none.
        edits: What it does with pictures that go in; `None` for nothing.
        sleep: Gives the memory of its model back; `None` if it has no such request.
        wake: Brings the model back; `None` if that happens by itself.
    """

    title: str
    sources: tuple[str, ...]
    needs_key: bool = False
    settings: frozenset[str]
    edit_only: frozenset[str] = frozenset()
    not_for_edits: frozenset[str] = frozenset()
    fixed: Mapping[str, Any] = {}
    arguments: Mapping[str, str] = {}
    limits: Mapping[str, float] = {}
    in_prompt: str = ""
    negative_after: str = ""
    seeds_count_up: bool = False
    most: int
    streams: bool = False
    fetches: bool = False
    transparent: Mapping[str, str] = {}
    edits: Edits | None = None
    sleep: Order | None = None
    wake: Order | None = None


@cache
def dialects() -> Mapping[str, Dialect]:
    """All of them by name."""
    text = resources.files(__package__).joinpath("dialects.yaml").read_text(encoding="utf-8")
    return TypeAdapter(dict[str, Dialect]).validate_python(yaml.safe_load(text))


def dialect_of(name: str) -> Dialect:
    """The dialect of that name.

    Raises:
        DrawError: If there is none; the hint names the nearest one, or all.
    """
    known = dialects()
    if name not in known:
        near = get_close_matches(name, known, n=1)
        raise DrawError(
            f"{name!r} is not a dialect of the Images API",
            hint=f"Write server.dialect: {near[0]}." if near else f"Write one of {', '.join(known)} as server.dialect.",
        )
    return known[name]
