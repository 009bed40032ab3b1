"""Tools for agents of LangChain: one draws, the other says what would draw.

    from langchain.agents import create_agent

    agent = create_agent("openai:gpt-5-mini", [DrawTool(), RouteTool()])
    agent.invoke({"messages": [("user", "Draw me a watercolor fox, please.")]})

The model reads paths and a sentence; the `Generation` or `Route` is the artifact of the tool's message.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any, Literal, TypeVar

from langchain_core.tools import BaseTool, ToolException
from pydantic import BaseModel, Field

from diffusiongpt.apps.agent_arguments import EDITS, arguments_model
from diffusiongpt.errors import DiffusionGPTError
from diffusiongpt.flow import Policy, Route
from diffusiongpt.pictures import Generation
from diffusiongpt.stopping import stoppable

T = TypeVar("T")


def _mistakes(error: Any) -> str:
    """What an agent reads of arguments that do not fit the schema."""
    said = (f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors(include_url=False))
    return f"RequestError: {'; '.join(said)}. Correct the arguments."


class _StudioTool(BaseTool):
    """What both tools have.

    Attributes:
        studio: The `DiffusionGPT` that is asked; `None` for the default one.
        policy: What a picture may cost and what is refused; an agent decides neither.
    """

    response_format: Literal["content", "content_and_artifact"] = "content_and_artifact"
    handle_tool_error: bool = True
    handle_validation_error: Any = Field(default=_mistakes, exclude=True, repr=False)
    studio: Any = Field(default=None, exclude=True, repr=False)
    policy: Policy = Field(default_factory=Policy)

    def _asked(self) -> Any:
        if self.studio is not None:
            return self.studio
        import diffusiongpt

        return diffusiongpt

    @abstractmethod
    def _answer(self, **options: Any) -> tuple[str, Any]:
        """What the agent reads, and the artifact."""

    def _run(self, **options: Any) -> tuple[str, Any]:
        """Answer what an agent asked for; an expected error is one that it reads and can act on."""
        ours = {"max_price": self.policy.max_price, "safety": self.policy.safety}  # not the agent's decision
        try:
            return self._answer(**{**options, **ours})
        except DiffusionGPTError as error:
            raise ToolException(f"{type(error).__name__}: {error}. {error.hint}") from error

    async def _arun(self, **options: Any) -> tuple[str, Any]:
        return await _in_thread(lambda: self._run(**options))


class DrawTool(_StudioTool):
    """Draws, from a text or with pictures, and answers with the paths of the files.

    Attributes:
        folder: Where pictures are saved.

    Example:
        tool = DrawTool(studio=studio, folder="pictures")
        message = tool.invoke({"type": "tool_call", "id": "1", "name": tool.name, "args": {"prompt": "a red heart"}})
        message.artifact.image
    """

    name: str = "draw_image"
    description: str = (
        "Draw a picture from a text, or change pictures, with the image model that people would like best for it. "
        "Pass what the person said as the prompt, in their language. Answers with the paths of the files."
    )
    args_schema: type[BaseModel] = arguments_model("DrawArguments", EDITS)
    folder: Path = Path("pictures")

    def _answer(self, **options: Any) -> tuple[str, Generation]:
        generation: Generation = self._asked().route_and_generate(**options)
        paths = generation.save(self.folder)
        return _drawn(generation, paths), generation


class RouteTool(_StudioTool):
    """Says which model would draw and why, what it would download and how long it would take; loads nothing.

    Example:
        tool = RouteTool(studio=studio)
        message = tool.invoke({"type": "tool_call", "id": "1", "name": tool.name, "args": {"prompt": "a red heart"}})
        message.artifact.expert
    """

    name: str = "route_image"
    description: str = (
        "Say which image model would draw a prompt and why, what it would have to download and how many seconds it "
        "would take. Draws and loads nothing; use it when the person asks which model, or before a long drawing."
    )
    args_schema: type[BaseModel] = arguments_model("RouteArguments", EDITS)

    def _answer(self, **options: Any) -> tuple[str, Route]:
        route: Route = self._asked().route(**options)
        return _planned(route), route


async def _in_thread(work: Callable[[], T]) -> T:
    """Do what blocks in a thread of its own; cancelling it ends a drawing within a step."""
    left = Event()

    def run() -> T:
        with stoppable(left=left):
            return work()

    try:
        return await asyncio.to_thread(run)
    finally:
        left.set()


def _drawn(generation: Generation, paths: list[Path]) -> str:
    files = "\n".join(str(path.resolve()) for path in paths)
    notes = [f"{one.name} was not followed: {one.reason}" for one in generation.dropped]
    notes += [f"{one.expert} could not draw: {one.error}" for one in generation.fallbacks]
    return "\n".join([f"{generation.drawn_by} drew it. {generation.route.sentence()}", files, *notes])


def _planned(route: Route) -> str:
    place = route.placement
    seconds = place.seconds if place is not None else None
    takes = "" if seconds is None else f" It would take about {max(1, round(seconds))} s."
    pulls = f" It would download {place.download_bytes / 1e9:.1f} GB first." if place and place.download_bytes else ""
    return f"{route.sentence()}{takes}{pulls}"
