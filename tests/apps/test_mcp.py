"""The server for agents, driven by the official client: in this process, over stdio and over HTTP."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from base64 import b64decode
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from mcp.client import Client
from mcp.client.stdio import StdioServerParameters
from PIL import Image
from typer.testing import CliRunner

from diffusiongpt import DiffusionGPT, Generation
from diffusiongpt.apps.cli import app
from diffusiongpt.apps.mcp import make_server
from diffusiongpt.flow import Policy, Request
from diffusiongpt.zoo import Zoo

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from diffusiongpt.settings import Settings

TOOLS = {"generate_image", "edit_image", "compare_images", "vote", "route_image", "list_experts"}
FEW = {"num_inference_steps": 2, "seed": 7}


@pytest.fixture
def studio(settings: Settings) -> Iterator[DiffusionGPT]:
    """A studio like any other."""
    with DiffusionGPT("tiny", device="cpu", settings=settings) as opened:
        yield opened


def ask(server: Any, talk: Callable[[Client], Awaitable[Any]]) -> Any:
    """What a conversation of a client with a server comes to."""

    async def main() -> Any:
        async with Client(server) as client:
            return await talk(client)

    return anyio.run(main)


def texts(result: Any) -> str:
    """The text that the model reads."""
    return "\n".join(block.text for block in result.content if block.type == "text")


async def use_everything(client: Client) -> dict[str, Any]:
    """Draw, read the picture as a resource, edit it, compare and vote, as an agent would."""
    heard: list[tuple[float, float | None, str | None]] = []

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        heard.append((progress, total, message))

    assert {tool.name for tool in (await client.list_tools()).tools} == TOOLS
    steps = {"num_inference_steps": 30, "seed": 7}
    drawn = await client.call_tool("generate_image", {"prompt": "a red heart", **steps}, progress_callback=hear)
    assert not drawn.is_error, texts(drawn)
    [picture] = drawn.structured_content["pictures"]
    [content] = (await client.read_resource(picture["uri"])).contents
    edited = await client.call_tool(
        "edit_image", {"prompt": "a blue star", "image": [picture["path"]], "strength": 0.7, **FEW}
    )
    assert not edited.is_error, texts(edited)
    compared = await client.call_tool("compare_images", {"prompt": "an oil painting of a red heart", **FEW})
    shown = [one[0]["path"] for one in compared.structured_content["pictures"].values()]
    voted = await client.call_tool("vote", {"best": shown[1], "others": [shown[0]]})
    return {
        "drawn": drawn,
        "file": b64decode(content.blob),
        "edited": edited,
        "compared": compared,
        "voted": voted,
        "heard": heard,
    }


def check_everything(done: dict[str, Any]) -> None:
    """What each answer has to be: paths and small previews, never walls of base64."""
    drawn = done["drawn"]
    [picture] = drawn.structured_content["pictures"]
    path = Path(picture["path"])
    assert path.is_absolute()
    assert path.read_bytes() == done["file"]
    assert Generation.from_file(path).drawn_by == drawn.structured_content["drawn_by"]
    kinds = [block.type for block in drawn.content]
    assert kinds == ["text", "image", "resource_link"]
    preview, link = drawn.content[1], drawn.content[2]
    assert (link.uri, link.size, link.mime_type) == (picture["uri"], len(done["file"]), "image/png")
    with Image.open(BytesIO(b64decode(preview.data))) as small:
        assert (small.format, max(small.size) <= 512) == ("JPEG", True)
    assert len(preview.data) < 150_000
    assert len(json.dumps(drawn.structured_content)) < 2_000
    assert done["edited"].structured_content["task"] == "image-to-image"
    heard = [progress for progress, _, _ in done["heard"]]
    assert heard == sorted(set(heard))
    assert all(total == 3 and message for _, total, message in done["heard"])
    assert any("drawing" in str(message) for _, _, message in done["heard"])
    blind = json.dumps([block.model_dump(mode="json") for block in done["compared"].content if block.type != "image"])
    blind += json.dumps(done["compared"].structured_content)
    named = done["voted"].structured_content["experts"]
    assert not [expert for expert in Zoo.load("tiny") if expert in blind]
    assert len(set(named.values())) == 2
    assert done["voted"].structured_content["best"] in named.values()


def test_over_stdio(tmp_path: Path) -> None:
    """`diffusiongpt mcp` serves the program that started it; the vote it takes is in the store."""
    env = {**os.environ, "DIFFUSIONGPT_HOME": str(tmp_path / "home")}
    arguments = ["-m", "diffusiongpt", "mcp", "--zoo", "tiny", "--device", "cpu", "--out", str(tmp_path / "pictures")]
    done = ask(StdioServerParameters(command=sys.executable, args=arguments, env=env), use_everything)
    check_everything(done)
    assert (tmp_path / "home" / "votes.db").exists()
    assert Path(done["drawn"].structured_content["pictures"][0]["path"]).parent == tmp_path / "pictures"


@contextmanager
def http_server(tmp_path: Path) -> Iterator[str]:
    """`diffusiongpt mcp --http` on a free port; when it is asked to end, it closes its studio and ends well."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    env = {**os.environ, "DIFFUSIONGPT_HOME": str(tmp_path / "home"), "DIFFUSIONGPT_ZOO": "tiny"}
    command = [sys.executable, "-m", "diffusiongpt", "mcp", "--http", "--port", str(port), "--device", "cpu"]
    with subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        try:
            for _ in range(600):
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}/mcp"
            process.terminate()
            assert process.wait(60) == 0
        finally:
            process.kill()


def test_over_http(tmp_path: Path) -> None:
    """`diffusiongpt mcp --http` serves the same tools on loopback, and reads no picture outside its folder."""
    secret = tmp_path / "mine.png"
    Image.new("RGB", (16, 16), "red").save(secret)

    async def talk(client: Client) -> tuple[dict[str, Any], Any]:
        done = await use_everything(client)
        return done, await client.call_tool("edit_image", {"prompt": "a star", "image": [str(secret)]})

    with http_server(tmp_path) as url:
        done, refused = ask(url, talk)
    check_everything(done)
    assert refused.is_error
    assert "not a picture of this server" in texts(refused)


def test_cancelling_ends_the_drawing(studio: DiffusionGPT, tmp_path: Path) -> None:
    """A client that no longer wants a picture ends it within a step, and the next request does not wait for it."""
    steps: list[int] = []
    drawing = Event()

    def count(pipe: Any, step: int, timestep: Any, given: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG001
        steps.append(step)
        drawing.set()
        return given

    draw = studio.route_and_generate
    studio.route_and_generate = lambda **options: draw(**options, callback_on_step_end=count)  # type: ignore[method-assign]

    async def talk(client: Client) -> None:
        long = {"prompt": "a red heart", "num_inference_steps": 1000, "seed": 1}
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.call_tool, "generate_image", long)
            await anyio.to_thread.run_sync(drawing.wait)
            tasks.cancel_scope.cancel()
        done = await client.call_tool("generate_image", {"prompt": "a blue star", **FEW})
        assert not done.is_error, texts(done)

    ask(make_server(studio, tmp_path), talk)
    assert len(steps) < 500


def test_the_arguments_are_those_of_a_request(studio: DiffusionGPT, tmp_path: Path) -> None:
    """The schema follows from `Request` and `Policy`; what is spent and refused, and who votes, is not an agent's."""

    async def talk(client: Client) -> dict[str, Any]:
        return {tool.name: tool for tool in (await client.list_tools()).tools}

    tools = ask(make_server(studio, tmp_path), talk)
    shown = tools["generate_image"].input_schema["properties"]
    fields = {**Request.model_fields, **Policy.model_fields}
    assert {"prompt", "negative_prompt", "seed", "expert", "prefer", "commercial_use", "local_only"} <= set(shown)
    assert not {"max_price", "safety", "voter", "callback_on_step_end", "memory"} & set(shown)
    for name, schema in shown.items():
        as_path = schema["description"].startswith("Absolute path")
        assert as_path == name.endswith("image")
        assert as_path or schema["description"] == fields[name].description, name
    assert tools["generate_image"].input_schema["required"] == ["prompt"]
    assert set(tools["edit_image"].input_schema["required"]) == {"prompt", "image"}
    assert all(tool.output_schema and tool.description for tool in tools.values())
    assert tools["route_image"].annotations.read_only_hint


def test_a_route_and_the_list_load_nothing(studio: DiffusionGPT, tmp_path: Path) -> None:
    """An agent can ask first what would draw, and what each expert is good at."""

    async def talk(client: Client) -> Any:
        return (
            await client.call_tool("route_image", {"prompt": "a pixel art fox"}),
            await client.call_tool("list_experts"),
        )

    routed, listed = ask(make_server(studio, tmp_path), talk)
    assert routed.structured_content["expert"] == "tiny-pixel"
    assert routed.structured_content["candidates"][0]["placement"] == "cpu"
    experts = {one["id"]: one for one in listed.structured_content["experts"]}
    assert set(experts) == set(studio.zoo)
    assert experts["tiny-pixel"]["styles"] == ["pixel_art"]
    assert experts["tiny-pixel"]["at_hand"]
    assert not list(tmp_path.iterdir())
    assert not studio.cache.is_loaded(studio.zoo["tiny-pixel"], device="cpu")


@pytest.mark.parametrize(
    ("tool", "arguments", "kind", "said"),
    [
        ("generate_image", {"prompt": "a nude child"}, "ContentPolicyError", "sexual-content-with-minors"),
        ("generate_image", {"prompt": "a fox", "expert": "tiny-pixle"}, "UnknownExpertError", "tiny-pixel"),
        ("generate_image", {"prompt": "  "}, "RequestError", "empty"),
        ("edit_image", {"prompt": "a fox", "image": ["/nowhere.png"]}, "RequestError", "does not exist"),
        ("edit_image", {"prompt": "a fox", "image": ["~no-such-person/a.png"]}, "RequestError", "does not exist"),
        ("edit_image", {"prompt": "a fox", "image": "/nowhere.png"}, "RequestError", "does not exist"),
        ("edit_image", {"prompt": "a fox", "image": ["a\0.png"]}, "RequestError", "is not a path"),
        ("edit_image", {"prompt": "a fox", "image": ["https://x.test/a.png"]}, "RequestError", "are not fetched"),
        ("vote", {"best": "/nowhere.png", "others": ["/b.png"]}, "PictureError", "does not exist"),
    ],
)
def test_errors_say_what_to_do(
    studio: DiffusionGPT, tmp_path: Path, tool: str, arguments: dict[str, Any], kind: str, said: str
) -> None:
    """An expected error is an answer that the agent can act on: its type, what is wrong, and a hint."""

    async def talk(client: Client) -> Any:
        return await client.call_tool(tool, arguments)

    result = ask(make_server(studio, tmp_path), talk)
    assert result.is_error
    assert said in texts(result)
    error = result.structured_content["error"]
    assert error["type"] == kind
    assert error["hint"]


@pytest.mark.parametrize("name", ["..%2Fvotes.db", "missing.png", "note.txt", "link.png", "%00.png"])
def test_only_pictures_are_resources(studio: DiffusionGPT, tmp_path: Path, name: str) -> None:
    """A resource is a picture in the folder, and nothing beside it."""
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "note.txt").write_text("private")
    (tmp_path / "votes.db").write_text("private")
    (tmp_path / "pictures" / "link.png").symlink_to(tmp_path / "votes.db")

    async def talk(client: Client) -> str:
        with pytest.raises(Exception) as caught:  # noqa: PT011  # the SDK's own
            await client.read_resource(f"diffusiongpt://pictures/{name}")
        return str(caught.value)

    said = ask(make_server(studio, tmp_path / "pictures"), talk)
    assert said
    assert "private" not in said


def test_without_the_extra_the_command_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing package is an error with the command that installs it."""
    monkeypatch.setitem(sys.modules, "mcp", None)
    for name in [name for name in sys.modules if name.startswith(("mcp.", "diffusiongpt.apps.mcp"))]:
        monkeypatch.delitem(sys.modules, name)
    result = CliRunner().invoke(app, ["mcp", "--zoo", "tiny"])
    assert result.exit_code == 1
    assert 'pip install "diffusiongpt[mcp]"' in result.output
