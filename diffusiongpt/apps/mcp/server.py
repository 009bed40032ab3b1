"""The tools, and the two ways in which agents reach them: stdio, and streamable HTTP on loopback."""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import uvicorn
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ResourceNotFoundError
from mcp_types import CallToolResult, ToolAnnotations

from diffusiongpt.apps.agent_arguments import DRAWS, EDITS, PATHS
from diffusiongpt.apps.listening import Listener
from diffusiongpt.apps.mcp import answers
from diffusiongpt.apps.mcp.signatures import described, takes
from diffusiongpt.apps.mcp.working import in_thread
from diffusiongpt.backends import is_hosted
from diffusiongpt.errors import DiffusionGPTError, RequestError
from diffusiongpt.files import expand_home, read_regular
from diffusiongpt.flow import Policy, is_address
from diffusiongpt.version import VERSION

if TYPE_CHECKING:
    from diffusiongpt.studio import DiffusionGPT

INSTRUCTIONS: Final = """\
Draws pictures on this machine. Each prompt goes to the image model that people would most likely prefer for it.
generate_image draws; edit_image changes pictures by an instruction or inside a mask; both answer with absolute paths,
a small preview and resource links. route_image says what would draw, how long it takes and what it would download, and
loads nothing: use it first when the person asks which model, or when a download may be needed. compare_images draws
with several models without naming them: show the pictures, ask which is best, and report the answer with vote.
Pass what the person said as the prompt, in their language, and leave out arguments that they did not ask for."""

MOST_BYTES: Final = 256 << 20
"""Largest picture that is read as a resource."""

_HOST: Final = "127.0.0.1"
_CLOSING_S: Final = 5
"""Seconds that open requests have to end once the process is asked to."""

Tool = Callable[..., Awaitable[CallToolResult]]

_READS: Final = ToolAnnotations(read_only_hint=True, open_world_hint=False)
_DRAWS: Final = ToolAnnotations(read_only_hint=False, destructive_hint=False, open_world_hint=False)


def make_server(
    studio: DiffusionGPT,
    folder: str | Path,
    *,
    policy: Policy | None = None,
    anywhere: bool = True,
) -> MCPServer[Any]:
    """A server over a studio.

    Args:
        studio: Draws.
        folder: Where pictures are saved; made if it does not exist.
        policy: What a picture may cost, and what is refused; agents decide neither.
        anywhere: Whether tools may read pictures from the whole machine; otherwise only from the folder.
    """
    target = expand_home(folder).resolve()
    tools = _Tools(studio, target, policy or Policy(), anywhere=anywhere)
    server: MCPServer[Any] = MCPServer(
        "diffusiongpt",
        title="diffusiongpt",
        instructions=INSTRUCTIONS,
        version=VERSION,
        log_level="WARNING",
    )
    for tool, hints in tools.all():
        server.add_tool(tool, annotations=hints)

    @server.resource(f"{answers.URI}{{name}}", mime_type="image/png", title="A picture that was drawn")
    def picture(name: str) -> bytes:
        """The PNG file of a picture that a tool drew, with the record of how it was drawn inside."""
        path = target / name
        try:
            # a link may lead elsewhere
            if path.name != name or path.suffix != ".png" or path.resolve().parent != target:
                raise ResourceNotFoundError(f"{name} is not a picture of this server")
            return read_regular(path, MOST_BYTES)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ResourceNotFoundError(f"{name} cannot be read: {reason}") from error

    return server


def serve_stdio(server: MCPServer[Any]) -> None:
    """Serve the program that started this one, until it closes its end."""
    # whatever a library prints would be read as a message of the protocol
    _log_to_stderr()
    server.run("stdio")


def serve_http(server: MCPServer[Any], port: int) -> None:
    """Serve programs of this machine at `http://127.0.0.1:PORT/mcp`; pages of other hosts are refused by the SDK.

    Returns when the process is asked to end. A client keeps a connection open for what it may hear later, so those
    are waited for briefly.

    Raises:
        SettingsError: If the port cannot be listened on.
    """
    _log_to_stderr()
    config = uvicorn.Config(
        server.streamable_http_app(host=_HOST),
        host=_HOST,
        port=port,
        log_level="warning",
        timeout_graceful_shutdown=_CLOSING_S,
    )
    Listener(config).listen()


def _log_to_stderr() -> None:
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING)


def _answers_errors(tool: Tool) -> Tool:
    """Answer an expected error with what it says and what to do, so that an agent can correct itself."""

    @functools.wraps(tool)
    async def answered(*args: Any, **given: Any) -> CallToolResult:
        try:
            return await tool(*args, **given)
        except DiffusionGPTError as error:
            rejected = "".join(
                f"\n{expert}: {reason}" for expert, reason in getattr(error, "rejected", ())[: answers.SHOWN]
            )
            said = {
                "type": type(error).__name__,
                "message": str(error),
                "hint": error.hint,
                "retryable": error.retryable,
                "rule": getattr(error, "rule", None),
            }
            return answers.refused(f"{error}. {error.hint}{rejected}", said)

    return answered


class _Tools:
    """The tools over one studio."""

    def __init__(self, studio: DiffusionGPT, folder: Path, policy: Policy, *, anywhere: bool) -> None:
        self._studio = studio
        self._folder = folder
        self._policy = {"max_price": policy.max_price, "safety": policy.safety}
        self._anywhere = anywhere

    def all(self) -> list[tuple[Tool, ToolAnnotations]]:
        """Each tool, with what clients may know about it."""
        return [
            (self._generate(), _DRAWS),
            (self._edit(), _DRAWS),
            (self._compare(), _DRAWS),
            (self._vote(), _DRAWS),
            (self._route(), _READS),
            (self._list(), _READS),
        ]

    def _generate(self) -> Tool:
        @takes(DRAWS, answers.Drawn)
        @_answers_errors
        async def generate_image(*, context: Context, **options: Any) -> CallToolResult:
            """Draw a picture from a text with the image model that people would like best for it."""
            return await self._draw(context, options)

        return generate_image

    def _edit(self) -> Tool:
        @takes(EDITS, answers.Drawn, {"image": (PATHS["image"], ...)})
        @_answers_errors
        async def edit_image(*, context: Context, **options: Any) -> CallToolResult:
            """Change a picture: as the prompt orders, inside a mask, or, with `strength`, as a starting point."""
            return await self._draw(context, options)

        return edit_image

    def _compare(self) -> Tool:
        k = described(int, "How many models to compare.", ge=2, le=8)

        @takes([name for name in DRAWS if name != "expert"], answers.Compared, {"k": (k, 2)})
        @_answers_errors
        async def compare_images(*, context: Context, **options: Any) -> CallToolResult:
            """Draw one prompt with several models, not named, for a person to say which is best; then call vote."""

            def work() -> CallToolResult:
                comparison = self._studio.compare(**self._read(options))
                return answers.compared(comparison, comparison.save(self._folder))

            return await in_thread(work, context)

        return compare_images

    def _vote(self) -> Tool:
        best = described(str, "Path of the best picture; with another outcome, of any of them.")
        others = described(list[str], "Paths of the pictures it was compared with.", min_length=1)
        outcome = described(Literal["win", "tie", "both_bad"], "Whether one is best, all are equal, or none will do.")

        @takes([], answers.Voted, {"best": (best, ...), "others": (others, ...), "outcome": (outcome, "win")})
        @_answers_errors
        async def vote(*, context: Context, best: str, others: Sequence[str], outcome: Any) -> CallToolResult:
            """Record which picture of a comparison a person prefers, in their words and not your own taste."""

            def work() -> CallToolResult:
                paths = [self._readable(path) for path in (best, *others)]
                cast = self._studio.vote(*paths, outcome=outcome)
                experts = {str(path): one.expert for path, one in zip(paths, cast.shown, strict=True)}
                queued = self._studio.preferences.store.is_queued(cast)
                voted = answers.Voted(outcome=cast.outcome, best=cast.winner, experts=experts, queued=queued)
                return answers.voted(voted)

            return await in_thread(work, context)

        return vote

    def _route(self) -> Tool:
        @takes(EDITS, answers.Routed)
        @_answers_errors
        async def route_image(*, context: Context, **options: Any) -> CallToolResult:
            """Say which model would draw a prompt and why, what it would download and how long it would take."""
            return await in_thread(lambda: answers.routed(self._studio.route(**self._read(options))), context)

        return route_image

    def _list(self) -> Tool:
        @takes([], answers.Listed)
        @_answers_errors
        async def list_experts(*, context: Context) -> CallToolResult:
            """List the image models with what each is good at, its licence, and whether it can draw at once."""
            return await in_thread(lambda: answers.listed(self._experts()), context)

        return list_experts

    async def _draw(self, context: Context, options: dict[str, Any]) -> CallToolResult:
        def work() -> CallToolResult:
            generation = self._studio.route_and_generate(**self._read(options))
            return answers.drawn(generation, generation.save(self._folder))

        return await in_thread(work, context)

    def _read(self, options: dict[str, Any]) -> dict[str, Any]:
        """The arguments of a tool as the studio takes them."""
        given = {**options, **self._policy}
        if options.get("image"):
            given["image"] = [self._readable(path) for path in options["image"]]
        for name in ("mask_image", "control_image"):
            if options.get(name):
                given[name] = self._readable(options[name])
        return given

    def _readable(self, name: str) -> Path:
        """A path that a tool may read.

        Raises:
            RequestError: If it is outside the folder, and only that may be read.
        """
        if is_address(name):
            raise RequestError(f"{name} is an address, and addresses are not fetched", hint="Pass the path of a file.")
        try:
            # an absolute path replaces the folder
            path = (self._folder / expand_home(name)).resolve()
        except (OSError, ValueError, RuntimeError) as error:
            # a null character, or links that lead in a circle
            raise RequestError(f"{name} is not a path: {error}", hint="Check the path.") from error
        if not self._anywhere and not path.is_relative_to(self._folder):
            raise RequestError(
                f"{name} is not a picture of this server", hint=f"Over HTTP only pictures in {self._folder} are read."
            )
        return path

    def _experts(self) -> answers.Listed:
        at_hand = set(self._studio.at_hand())
        return answers.Listed(
            experts=[
                answers.Strengths(
                    id=one.id,
                    description=one.description,
                    subjects=list(one.tags.subjects),
                    styles=list(one.tags.styles),
                    at_hand=one.id in at_hand,
                    licence=one.license.id if one.license else "unknown",
                    commercial_use=one.license.commercial if one.license else "unknown",
                    price=one.price.usd if one.price and is_hosted(one.backend) else None,
                )
                for one in self._studio.zoo.values()
            ]
        )
