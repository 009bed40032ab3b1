"""The signatures of the tools, from which the SDK makes their schemas."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any

from mcp.server.mcpserver import Context
from mcp_types import CallToolResult
from pydantic import Field

from diffusiongpt.apps.agent_arguments import annotation_of

Extra = Mapping[str, tuple[Any, Any]]
"""Further arguments -> annotation, and default or `...`."""


def takes(
    names: Iterable[str], returns: type[Any], extra: Extra | None = None
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a tool that takes `context` and keyword arguments a signature.

    Args:
        names: Fields of `Request` and `Policy`.
        returns: Model of the structured content.
        extra: Further arguments; they take precedence over fields of the same name.
    """
    given = {name: annotation_of(name) for name in names} | dict(extra or {})

    def decorate(tool: Callable[..., Any]) -> Callable[..., Any]:
        parameters = [_parameter(name, *one) for name, one in given.items()]
        # those that must be given first, as people read a schema
        parameters.sort(key=lambda one: one.default is not inspect.Parameter.empty)
        context = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=Context)
        kept = Annotated[CallToolResult, returns]
        # mypy does not know that functions have one
        tool.__signature__ = inspect.Signature([*parameters, context], return_annotation=kept)  # type: ignore[attr-defined]
        tool.__annotations__ = {**{one.name: one.annotation for one in parameters}, "context": Context, "return": kept}
        return tool

    return decorate


def described(kind: Any, text: str, **limits: Any) -> Any:
    """An annotation with a description."""
    return Annotated[kind, Field(description=text, **limits)]


def _parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    given = inspect.Parameter.empty if default is ... else default
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=given)
