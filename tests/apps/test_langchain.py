"""The tools for LangChain, in the loop of a real agent whose model is a local server."""

from __future__ import annotations

import asyncio
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import ToolMessage
from langchain_openai import ChatOpenAI

from diffusiongpt import DiffusionGPT, Generation, Policy, Route
from diffusiongpt.apps.langchain import DrawTool, RouteTool
from diffusiongpt.flow import Request
from diffusiongpt.testing import LocalChat, ToolCall

if TYPE_CHECKING:
    from collections.abc import Iterator

    from diffusiongpt.settings import Settings

FEW = {"num_inference_steps": 2, "seed": 7}


@pytest.fixture
def studio(settings: Settings) -> Iterator[DiffusionGPT]:
    """A studio with the tiny zoo."""
    with DiffusionGPT("tiny", device="cpu", settings=settings) as opened:
        yield opened


@pytest.fixture
def chat() -> Iterator[LocalChat]:
    """The agent's model."""
    with LocalChat() as server:
        yield server


def agent_of(chat: LocalChat, *tools: Any) -> Any:
    """An agent over the real client."""
    return create_agent(ChatOpenAI(model="local", base_url=chat.url, api_key="any", max_retries=0), list(tools))


def tool_messages(state: dict[str, Any]) -> list[ToolMessage]:
    """What the tools answered, in order."""
    return [message for message in state["messages"] if isinstance(message, ToolMessage)]


def test_an_agent_asks_and_draws(chat: LocalChat, studio: DiffusionGPT, tmp_path: Path) -> None:
    """The model previews the route, draws, reads the path, and answers; the artifacts are a `Route` and a result."""
    chat.reply(ToolCall("route_image", {"prompt": "a pixel art heart"}), times=1)
    chat.reply(ToolCall("draw_image", {"prompt": "a pixel art heart", **FEW}), times=1)
    chat.reply("Here is your heart.", times=1)
    tools = DrawTool(studio=studio, folder=tmp_path), RouteTool(studio=studio)
    state = agent_of(chat, *tools).invoke({"messages": [("user", "Draw a pixel art heart, please.")]})
    planned, drawn = tool_messages(state)
    assert isinstance(planned.artifact, Route)
    assert planned.artifact.expert in planned.content
    assert isinstance(drawn.artifact, Generation)
    [path] = [Path(line) for line in str(drawn.content).splitlines() if line.endswith(".png")]
    assert path.is_absolute()
    assert path.parent == tmp_path.resolve()
    assert Generation.from_file(path).seeds == (7,)
    assert state["messages"][-1].content == "Here is your heart."
    read = [message["content"] for message in chat.requests[-1].body["messages"] if message["role"] == "tool"]
    assert read == [planned.content, drawn.content]
    assert all(len(text) < 1_000 for text in read)


def test_a_picture_goes_in(chat: LocalChat, studio: DiffusionGPT, tmp_path: Path) -> None:
    """With paths of pictures the same tool changes them."""
    [before] = studio.route_and_generate("a red heart", **FEW).save(tmp_path)
    chat.reply(
        ToolCall("draw_image", {"prompt": "a blue star", "image": [str(before)], "strength": 0.7, **FEW}), times=1
    )
    chat.reply("Done.", times=1)
    state = agent_of(chat, DrawTool(studio=studio, folder=tmp_path)).invoke({"messages": [("user", "make it a star")]})
    [drawn] = tool_messages(state)
    assert drawn.artifact.route.task == "image-to-image"
    assert drawn.artifact.inputs


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"prompt": "a nude child"}, "ContentPolicyError"),
        ({"prompt": "a fox", "expert": "tiny-pixle"}, "tiny-pixel"),
        ({"prompt": "a fox", "image": ["/nowhere.png"]}, "does not exist"),
        ({"prompt": "a fox", "image": "/nowhere.png"}, "does not exist"),
        ({"prompt": "a fox", "image": ["https://x.test/a.png"]}, "are not fetched"),
        ({"prompt": "a fox", "image": ["/nowhere.png"], "strength": 2}, "strength: "),
    ],
)
def test_an_agent_reads_what_went_wrong(
    chat: LocalChat, studio: DiffusionGPT, tmp_path: Path, arguments: dict[str, Any], said: str
) -> None:
    """An expected error is an answer with a hint, so that the agent can go on."""
    chat.reply(ToolCall("draw_image", arguments), times=1)
    chat.reply("I could not.", times=1)
    state = agent_of(chat, DrawTool(studio=studio, folder=tmp_path)).invoke({"messages": [("user", "draw")]})
    [answer] = tool_messages(state)
    assert answer.status == "error"
    assert said in str(answer.content)
    assert state["messages"][-1].content == "I could not."


def test_what_is_spent_and_refused_is_no_decision_of_an_agent(studio: DiffusionGPT) -> None:
    """The schema has the fields of a request, without prices and policies, which the tool is made with."""
    tool = DrawTool(studio=studio, policy=Policy(safety="strict"))
    shown = tool.args_schema.model_json_schema()
    assert {"prompt", "negative_prompt", "image", "seed", "expert", "local_only"} <= set(shown["properties"])
    assert not {"max_price", "safety", "voter", "callback_on_step_end"} & set(shown["properties"])
    assert shown["required"] == ["prompt"]
    assert shown["properties"]["seed"]["description"] == Request.model_fields["seed"].description
    call = {"type": "tool_call", "id": "1", "name": tool.name, "args": {"prompt": "a nude woman", "safety": "off"}}
    assert "nudity" in tool.invoke(call).content


def test_an_async_agent_draws_and_can_be_stopped(chat: LocalChat, studio: DiffusionGPT, tmp_path: Path) -> None:
    """`ainvoke` leaves the loop free; a task that is cancelled ends its drawing within a step."""
    steps: list[int] = []
    drawing = Event()

    def count(_pipe: Any, step: int, _timestep: Any, given: dict[str, Any]) -> dict[str, Any]:
        steps.append(step)
        drawing.set()
        return given

    draw = studio.route_and_generate
    studio.route_and_generate = lambda **options: draw(**options, callback_on_step_end=count)  # type: ignore[method-assign]
    tool = DrawTool(studio=studio, folder=tmp_path)

    async def main() -> dict[str, Any]:
        task = asyncio.create_task(tool.ainvoke({"prompt": "a red heart", "num_inference_steps": 1000}))
        await asyncio.to_thread(drawing.wait)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        chat.reply(ToolCall("draw_image", {"prompt": "a red heart", **FEW}), times=1)
        chat.reply("Done.", times=1)
        state: dict[str, Any] = await agent_of(chat, tool).ainvoke({"messages": [("user", "a heart")]})
        return state

    [drawn] = tool_messages(asyncio.run(main()))
    assert isinstance(drawn.artifact, Generation)
    assert len(steps) < 500
