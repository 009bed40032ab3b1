"""`diffusiongpt mcp`: draw for agents."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from diffusiongpt.apps.cli.common import DeviceOption, LLMOption, YesOption, ZooOption, load_zoo, make_folder
from diffusiongpt.apps.cli.printing import say


def mcp(
    http: Annotated[bool, typer.Option("--http", help="Serve HTTP on this machine instead of stdio.")] = False,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of --http.")] = 8765,
    zoo: ZooOption = None,
    llm: LLMOption = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the pictures; below your data folder if absent.", show_default=False),
    ] = None,
    device: DeviceOption = None,
    max_price: Annotated[float, typer.Option("--max-price", help="Highest price of a picture in US dollars.")] = 0.0,
    safety: Annotated[str, typer.Option(help="What is refused: off, standard or strict.")] = "standard",
    yes: YesOption = False,
) -> None:
    """Draw for agents: Claude Desktop, Cursor and other clients of the Model Context Protocol."""
    from diffusiongpt.errors import NeedsExtraError
    from diffusiongpt.flow import Policy
    from diffusiongpt.settings import load_settings
    from diffusiongpt.studio import DiffusionGPT

    try:
        from diffusiongpt.apps.mcp import make_server, serve_http, serve_stdio
    except ModuleNotFoundError as error:
        raise NeedsExtraError(
            f"the server for agents needs the package {error.name}", hint='pip install "diffusiongpt[mcp]"'
        ) from error
    policy = Policy.model_validate({"max_price": max_price, "safety": safety})
    folder = make_folder(out or load_settings().home / "pictures")
    agree = (lambda _: True) if yes else None
    with DiffusionGPT(load_zoo(zoo), llm=llm, device=device, agree=agree) as studio:
        server = make_server(studio, folder, policy=policy, anywhere=not http)
        if http:
            say(f"http://127.0.0.1:{port}/mcp; pictures go to {folder}")
            serve_http(server, port)
        else:
            serve_stdio(server)
