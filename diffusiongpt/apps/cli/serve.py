"""`diffusiongpt serve`: the studio for the programs that people already have."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diffusiongpt.apps.cli.common import DeviceOption, LLMOption, ZooOption, load_zoo
from diffusiongpt.apps.cli.printing import say

if TYPE_CHECKING:
    from diffusiongpt.apps.server import ServerSettings


def serve(
    host: Annotated[
        str | None, typer.Option(help="Address to listen on; 127.0.0.1 if absent.", show_default=False)
    ] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 8000 if absent.", show_default=False)] = None,
    zoo: ZooOption = None,
    llm: LLMOption = None,
    device: DeviceOption = None,
    api_key: Annotated[
        list[str] | None,
        typer.Option(
            "--api-key",
            help="Key that requests have to carry; may be repeated. Better in the environment.",
            show_default=False,
        ),
    ] = None,
    no_auth: Annotated[
        bool, typer.Option("--no-auth", help="Serve without keys on an address that others can reach.")
    ] = False,
    no_page: Annotated[bool, typer.Option("--no-page", help="Serve the API only, without the page at /.")] = False,
    ray: Annotated[
        bool, typer.Option("--ray", help="Draw with a fleet of replicas on Ray Serve; see docs/scale.md.")
    ] = False,
    replicas: Annotated[
        int | None,
        typer.Option(
            help="With --ray: replicas that draw; one for each GPU if absent, else two.", min=1, show_default=False
        ),
    ] = None,
) -> None:
    """Serve over HTTP: OpenAI's Images API, AUTOMATIC1111's, and our own."""
    try:
        from diffusiongpt.apps import server
    except ModuleNotFoundError as error:
        from diffusiongpt.errors import NeedsExtraError

        raise NeedsExtraError(f"the server needs {error.name}", hint="pip install 'diffusiongpt[serve]'") from error
    from diffusiongpt.settings import load_settings
    from diffusiongpt.studio import DiffusionGPT

    given: dict[str, Any] = {
        "host": host,
        "port": port,
        "api_keys": tuple(api_key) if api_key else None,
        "no_auth": no_auth or None,
        "page": False if no_page else None,
    }
    settings = server.load_server_settings(**{name: value for name, value in given.items() if value is not None})
    settings = server.guarded(settings)
    if ray:
        _serve_fleet(settings, zoo, replicas, llm=llm, device=device)
        return
    # a service draws what was asked for, or says why not
    own = load_settings(stand_in=False)
    with DiffusionGPT(load_zoo(zoo), llm=llm, device=device, settings=own) as studio:
        server.warm_up(studio)
        say(f"{len(studio.zoo)} experts on {studio.device}")
        server.serve(server.create_app(studio, settings), settings)


def _serve_fleet(
    settings: ServerSettings, zoo: list[str] | None, replicas: int | None, *, llm: str | None, device: str | None
) -> None:
    """Start a fleet on this machine; its processes read what was said here from their environment."""
    try:
        from diffusiongpt.apps import ray_serve
    except ModuleNotFoundError as error:
        from diffusiongpt.errors import NeedsExtraError

        raise NeedsExtraError(f"a fleet needs {error.name}", hint="pip install 'diffusiongpt[ray]'") from error
    load_zoo(zoo)
    said = {"LLM": llm, "DEVICE": device}
    os.environ |= {f"DIFFUSIONGPT_{name}": value for name, value in said.items() if value}
    ray_serve.serve_fleet(settings, zoo=",".join(zoo or ()), replicas=replicas)
