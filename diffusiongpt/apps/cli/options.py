"""Options that several commands share, and those of every request.

`takes_request` gives `route`, `generate` and `compare` the fields of `Request` and `Policy` as the same options. They
are written down here, and not read off the models, because importing pydantic would take longer than showing the
help; a test holds them to the models. Limits are checked by the models alone, whose errors `--json` can print.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any, get_type_hints

import typer

ZooOption = Annotated[
    list[str] | None,
    typer.Option(
        "--zoo", help="Zoo file, 'default' or 'tiny'; may be repeated, later over earlier.", show_default=False
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
LLMOption = Annotated[
    str | None, typer.Option(help="LLM that reads the prompt, such as openai:gpt-5-mini.", show_default=False)
]
DeviceOption = Annotated[
    str | None, typer.Option(help="cuda, mps or cpu; the best one present if absent.", show_default=False)
]
VoterOption = Annotated[str, typer.Option(help="Voter whose preferences count.")]


def _option(kind: Any, default: Any, *names: str, **details: Any) -> tuple[Any, Any]:
    return Annotated[kind, typer.Option(*names, show_default=default is not None, **details)], default


REQUEST_OPTIONS: dict[str, tuple[Any, Any]] = {
    "negative_prompt": _option(str | None, None, "--negative", help="What must not be in the picture."),
    "width": _option(int | None, None, help="Width in pixels; the expert's own if absent."),
    "height": _option(int | None, None, help="Height in pixels; the expert's own if absent."),
    "num_inference_steps": _option(int | None, None, "--steps", help="Denoising steps."),
    "guidance_scale": _option(float | None, None, "--guidance", help="Guidance scale."),
    "num_images_per_prompt": _option(int, 1, "-n", "--number", help="Pictures to draw."),
    "seed": _option(int | None, None, min=0, max=2**63 - 1, help="Seed of the first picture; fresh if absent."),
    "expert": _option(str | None, None, help="Id of the expert that draws."),
    "explore": _option(str | None, None, help="thompson picks by chance from what may be best, by the seed."),
    "voter": _option(str, "me", help="Voter whose preferences count."),
    "memory": _option(str | None, None, help="Memory to plan for: 24GB, 24GB+64GB (device and host), cpu or any."),
    "prefer": _option(str, "quality", help="quality, or fast to weigh the seconds as well."),
    "commercial_use": _option(bool, False, "--commercial-use", help="Only experts whose licence allows it."),
    "local_only": _option(bool, False, "--local-only", help="Only experts that run on this machine."),
    "max_price": _option(float, 0.0, "--max-price", help="Highest price of a picture in US dollars; inf for any."),
}
"""Field of `Request` or `Policy` -> its annotation for typer and its default; `prompt` is an argument instead."""


def takes_request(*left_out: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of every request; it is called with them as a mapping named `options`.

    Args:
        *left_out: Fields that do not apply to this command.
    """
    shared = {name: option for name, option in REQUEST_OPTIONS.items() if name not in left_out}

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def run(**given: Any) -> None:
            options = {name: given.pop(name) for name in shared}
            command(**given, options=options)

        own = [one for one in inspect.signature(command).parameters.values() if one.name != "options"]
        kinds = get_type_hints(command, include_extras=True)
        added = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
            for name, (kind, default) in shared.items()
        ]
        parameters = [
            *(one.replace(annotation=kinds[one.name], kind=inspect.Parameter.KEYWORD_ONLY) for one in own),
            *added,
        ]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # what typer reads
        run.__annotations__ = {one.name: one.annotation for one in parameters}
        return run

    return decorate
