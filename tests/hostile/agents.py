"""Calls of agents over the Model Context Protocol: arguments of any shape, paths and resources that lead elsewhere."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from hostile import Attack
from hostile._strange import spoilt

KIND = "agent"
CALLS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("generate_image", {"prompt": "a fox", "num_inference_steps": 1, "seed": 1, "width": 64, "height": 64}),
    ("edit_image", {"prompt": "but blue", "image": ["{in}/fox.png"], "strength": 0.5, "seed": 1}),
    ("compare_images", {"prompt": "a fox", "num_inference_steps": 1, "seed": 1}),
    ("vote", {"best": "{in}/fox.png", "others": ["{in}/other.png"], "outcome": "win"}),
    ("route_image", {"prompt": "a fox", "experts": ["tiny-oil"], "width": 64}),
    ("list_experts", {"style": "anime"}),
)
PATHS = (
    "/etc/passwd", "/dev/zero", "/proc/self/environ", "{out}/secret.png", "{in}/link.png", "{in}/pipe.png", "{in}",
    "../secret.png", "~/x.png", "file:///etc/passwd", "http://127.0.0.1:9/x.png", "data:image/png;base64,AAAA", "a\0b",
    "x" * 5_000, "", "{in}/../out/secret.png",
)  # fmt: skip
ADDRESSES = (
    "diffusiongpt://pictures/../../etc/passwd", "diffusiongpt://pictures/%2e%2e%2fsecret.png", "file:///etc/passwd",
    "diffusiongpt://pictures/link.png", "diffusiongpt://pictures/", "diffusiongpt://pictures/" + "a" * 9_000, "http://x",
    "diffusiongpt://pictures/%00.png",
)  # fmt: skip


def attacks(seed: int, count: int) -> Iterator[Attack]:
    """See `hostile`."""
    for number in range(count):
        how = ("arguments", "paths", "arguments", "addresses")[number % 4]
        yield Attack(KIND, f"{how} {number}", partial(_meet, how, f"{seed} {KIND} {number}"))


def _meet(how: str, seed: str, folder: Path) -> None:
    """Ask a server as the official client does; it answers, and goes on answering."""
    import anyio
    from mcp.client import Client
    from mcp.shared.exceptions import MCPError
    from PIL import Image

    from diffusiongpt.apps.mcp import make_server
    from diffusiongpt.settings import load_settings
    from diffusiongpt.studio import DiffusionGPT

    rng = random.Random(seed)  # noqa: S311  # a mess, not a secret
    inside, outside = folder / "in", folder / "out"
    inside.mkdir()
    outside.mkdir()
    Image.new("RGB", (64, 64), "red").save(inside / "fox.png")
    Image.new("RGB", (64, 64), "blue").save(outside / "secret.png")
    (inside / "link.png").symlink_to(outside / "secret.png")
    os.mkfifo(inside / "pipe.png")
    zoo = folder / "zoo.yaml"
    experts = "".join(f"  - {{id: {name}, backend: fake, repo: me/{name}}}\n" for name in ("tiny-oil", "flat"))
    zoo.write_text(f"experts:\n{experts}", encoding="utf-8")
    settings = load_settings(home=folder / "home", hub_cache=folder / "hub", device="cpu")

    async def talk(server: Any) -> None:
        async with Client(server) as client:
            if how == "addresses":
                try:
                    found = await client.read_resource(rng.choice(ADDRESSES))
                    raise AssertionError(f"a resource elsewhere was read: {found!r:.200}")
                except (MCPError, ValueError) as error:
                    print(error)  # noqa: T201  # what an agent is answered
            else:
                name, arguments = rng.choice(CALLS)
                answer = await client.call_tool(name, _arguments(how, arguments, rng, inside, outside))
                print([getattr(one, "text", "") for one in answer.content])  # noqa: T201  # as above
                assert str(outside) not in str(answer.structured_content), "a picture outside was read"
            assert not (await client.call_tool("list_experts", {})).is_error

    with DiffusionGPT(zoo, settings=settings) as studio:
        anyio.run(talk, make_server(studio, inside, anywhere=False))


def _arguments(how: str, honest: dict[str, Any], rng: random.Random, inside: Path, outside: Path) -> dict[str, Any]:
    def placed(text: str) -> str:
        return text.replace("{in}", str(inside)).replace("{out}", str(outside))

    given = {key: _each(value, placed) for key, value in honest.items()}
    if how == "paths":
        place = placed(rng.choice(PATHS))
        argument = rng.choice(("image", "mask_image", "control_image", "best", "others"))
        return {**given, argument: [place] if argument in ("image", "others") else place}
    found = spoilt(given, rng, rng.randint(1, 3))
    return found if isinstance(found, dict) else given


def _each(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, list):
        return [_each(one, change) for one in value]
    return change(value) if isinstance(value, str) else value
