"""The arguments of the tools: fields of the one `Request` and `Policy`, as JSON has them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from mcp.server.mcpserver import Context
from mcp_types import CallToolResult
from pydantic import Field
from pydantic.fields import FieldInfo

from diffusiongpt.flow import Policy, Request

NOT_FOR_AGENTS = frozenset({
    "callback_on_step_end", "voter", "explore", "timeout", "memory", "prefer_mine", "max_price", "safety",
})  # fmt: skip
"""What whoever starts the server decides, and not an agent: whose votes, what may be spent, what is refused."""

OF_PICTURES = frozenset({"image", "mask_image", "strength"})
"""What only an edit takes."""

DRAWS = [name for name in (*Request.model_fields, *Policy.model_fields) if name not in NOT_FOR_AGENTS | OF_PICTURES]
EDITS = [name for name in (*Request.model_fields, *Policy.model_fields) if name not in NOT_FOR_AGENTS]

_PATHS: dict[str, Any] = {
    "image": Annotated[
        list[str],
        Field(description="Absolute path of the picture to change, or several to take things from.", min_length=1),
    ],
    "mask_image": Annotated[
        str | None,
        Field(description="Absolute path of a mask: what is white, or transparent, is painted."),
    ],
}
"""Pictures come as paths; a tool reads them itself, and its errors are ours."""


def takes(
    names: list[str], returns: type[Any], extra: Mapping[str, tuple[Any, Any]] | None = None
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a tool that takes `context` and keyword arguments the fields of these names as its signature.

    Args:
        names: Fields of `Request` and `Policy`.
        returns: Model of the structured content.
        extra: Further arguments -> annotation and default.
    """

    def decorate(tool: Callable[..., Any]) -> Callable[..., Any]:
        given = {name: _parameter(name) for name in names}
        given |= {name: _keyword(name, *one) for name, one in (extra or {}).items()}
        # those that must be given first, as people read a schema
        ordered = sorted(given.values(), key=lambda one: one.default is not inspect.Parameter.empty)
        context = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=Context)
        kept = Annotated[CallToolResult, returns]
        tool.__signature__ = inspect.Signature([*ordered, context], return_annotation=kept)  # type: ignore[attr-defined]
        tool.__annotations__ = {**{one.name: one.annotation for one in ordered}, "context": Context, "return": kept}
        return tool

    return decorate


def _parameter(name: str) -> inspect.Parameter:
    field = (Request.model_fields | Policy.model_fields)[name]
    # a picture that an edit cannot do without has no default
    default = inspect.Parameter.empty if field.is_required() or name == "image" else field.default
    return _keyword(name, _PATHS.get(name) or _annotation(field), default)


def _keyword(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)


def _annotation(field: FieldInfo) -> Any:
    return Annotated[(field.annotation, *field.metadata, Field(description=field.description))]
