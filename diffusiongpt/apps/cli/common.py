"""What all commands share: options, how studios are opened, and what files and folders are read and written.

`takes_request` gives `route`, `generate` and `compare` the fields of `Request` and `Policy` as the same options. They
are written down here, and not read off the models, because importing pydantic would take longer than showing the
help; a test holds them to the models. Limits are checked by the models alone, whose errors `--json` can print.
"""

from __future__ import annotations

import functools
import inspect
import logging
import sys
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self, get_type_hints

import typer

from diffusiongpt.apps.cli.printing import confirm, make_console, say
from diffusiongpt.safe_text import logger

if TYPE_CHECKING:
    from types import TracebackType

    from rich.progress import TaskID

    from diffusiongpt.hub import PullPlan
    from diffusiongpt.studio import DiffusionGPT
    from diffusiongpt.zoo import Zoo


READS = "is read"
"""Marks the arguments of a command that name files it reads; see `reporting`."""

EditedZooOption = Annotated[
    list[str] | None,
    typer.Option(
        "--zoo", help="Zoo file, 'default' or 'tiny'; may be repeated, later over earlier.", show_default=False
    ),
]
"""Of a command that makes the last of them if it does not exist."""

ZooOption = Annotated[EditedZooOption, READS]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
LLMOption = Annotated[
    str | None, typer.Option(help="LLM that reads the prompt, such as openai:gpt-5-mini.", show_default=False)
]
DeviceOption = Annotated[
    str | None, typer.Option(help="cuda, mps or cpu; the best one present if absent.", show_default=False)
]
VoterOption = Annotated[str, typer.Option(help="Voter whose preferences count.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do what is otherwise asked about first.")]


def _option(kind: Any, default: Any, *names: str, **details: Any) -> tuple[Any, Any]:
    return Annotated[kind, typer.Option(*names, show_default=default is not None, **details)], default


REQUEST_OPTIONS: dict[str, tuple[Any, Any]] = {
    "negative_prompt": _option(str | None, None, "--negative", help="What must not be in the picture."),
    "image": (
        Annotated[
            list[Path],
            typer.Option("--image", help="Picture to start from or to change; repeatable.", show_default=False),
        ],
        (),
    ),
    "mask_image": _option(Path | None, None, "--mask", help="What of the picture is painted: white, or transparent."),
    "control_image": _option(
        Path | None, None, "--control-image", help="Picture whose outlines, depth or poses a ControlNet follows."
    ),
    "strength": _option(float | None, None, help="How far to go from the picture, 0.01 to 1."),
    "width": _option(int | None, None, help="Width in pixels; the expert's own if absent."),
    "height": _option(int | None, None, help="Height in pixels; the expert's own if absent."),
    "background": _option(str, "auto", help="transparent or opaque; auto goes by the prompt."),
    "num_inference_steps": _option(int | None, None, "--steps", help="Denoising steps."),
    "guidance_scale": _option(float | None, None, "--guidance", help="Guidance scale."),
    "num_images_per_prompt": _option(int, 1, "-n", "--number", help="Pictures to draw."),
    "seed": _option(int | None, None, help="Seed of the first picture; fresh if absent."),
    "expert": _option(str | None, None, help="Id of the expert that draws."),
    "experts": _option(str | None, None, help="Ids of the experts to choose from or compare: a,b,c."),
    "rewrite": _option(bool, True, "--rewrite/--no-rewrite", help="Give the expert the prompt in the form it likes."),
    "explore": _option(str | None, None, help="thompson picks by chance from what may be best, by the seed."),
    "voter": _option(str, "me", help="Voter whose preferences count."),
    "timeout": _option(float | None, None, help="Seconds after which to give up."),
    "memory": _option(str | None, None, help="Memory to plan for: 24GB, 24GB+64GB (device and host), cpu or any."),
    "prefer": _option(str, "quality", help="quality; fast weighs the seconds as well, cheap the price."),
    "prefer_mine": _option(bool, False, "--prefer-mine", help="Prefer the experts of your own zoo files."),
    "commercial_use": _option(bool, False, "--commercial-use", help="Only experts whose licence allows it."),
    "local_only": _option(bool, False, "--local-only", help="Only experts that run on this machine."),
    "max_price": _option(float, 0.0, "--max-price", help="Highest price of a picture in US dollars; inf for any."),
    "max_wait": _option(float | None, None, "--max-wait", help="Most seconds that a picture may be expected to take."),
    "safety": _option(str, "standard", help="What is refused: off, standard or strict."),
}
"""Field of `Request` or `Policy` -> its annotation for typer and its default; `prompt` is an argument instead."""


def takes_request(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of every request; it is called with them as a mapping named `options`."""

    @functools.wraps(command)
    def run(**given: Any) -> None:
        options = {name: given.pop(name) for name in REQUEST_OPTIONS}
        command(**given, options=options)

    own = [one for one in inspect.signature(command).parameters.values() if one.name != "options"]
    kinds = get_type_hints(command, include_extras=True)
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
        for name, (kind, default) in REQUEST_OPTIONS.items()
    ]
    parameters = [
        *(one.replace(annotation=kinds[one.name], kind=inspect.Parameter.KEYWORD_ONLY) for one in own),
        *added,
    ]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # what typer reads
    run.__annotations__ = {one.name: one.annotation for one in parameters}
    return run


def is_terminal() -> bool:
    """Whether a person sits at both ends."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def load_zoo(sources: list[str] | None) -> Zoo:
    """The zoo that `--zoo` names, else the one of the settings."""
    from diffusiongpt.settings import load_settings
    from diffusiongpt.zoo import Zoo

    return Zoo.load(*(sources or load_settings().zoo_layers))


_LABELS = {"download": "pulling", "load": "loading", "draw": "drawing"}


class Progress:
    """Progress bars on stderr, on a terminal only: one per phase, and a new phase replaces the bar of the last."""

    def __init__(self) -> None:
        # rich takes longer to import than the rest of the command line, and only drawing needs it
        from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        console = make_console(err=True)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[amount]}"),
            TimeRemainingColumn(),
        )
        self._bars = RichProgress(*columns, console=console, transient=True, disable=not sys.stderr.isatty())
        self._phase = ""
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        """Start."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Remove the bar."""
        self._bars.stop()

    def update(self, phase: str, done: int, total: int | None) -> None:
        """Show how far a phase is."""
        if phase != self._phase or self._task is None:
            self._start(phase)
        if self._task is not None:
            amount = f"{done / 1e6:.1f} MB" if phase == "download" else f"{done}/{total}" if total else ""
            self._bars.update(self._task, completed=done, total=total, amount=amount)
            if total and done >= total:
                self._bars.stop()
                self._phase = ""

    def _start(self, phase: str) -> None:
        if self._task is not None:
            self._bars.remove_task(self._task)
        self._phase = phase
        self._task = self._bars.add_task(_LABELS.get(phase, phase), amount="", total=None)
        self._bars.start()


@contextmanager
def open_studio(
    sources: list[str] | None, *, device: str | None = None, llm: str | None = None, yes: bool = False
) -> Iterator[DiffusionGPT]:
    """A studio that shows its progress on stderr, asks before large pulls, and is closed at the end.

    Args:
        sources: Zoo layers; those of the settings if absent.
        device: Device to draw on.
        llm: LLM that reads prompts.
        yes: Whether large pulls are agreed to already.
    """
    from diffusiongpt.studio import DiffusionGPT

    may_pull = (lambda _: True) if yes else AsksOnce() if is_terminal() else None
    with Progress() as progress, _without_what_results_say():
        studio = DiffusionGPT(
            load_zoo(sources),
            llm=llm,
            device=device,
            agree=may_pull,
            on_pull=lambda plan: say(str(plan)),
            on_progress=progress.update,
        )
        with studio:
            yield studio


@contextmanager
def _without_what_results_say() -> Iterator[None]:
    """Drop the warnings that repeat what a result says: the commands print results."""

    def is_news(record: logging.LogRecord) -> bool:
        return not getattr(record, "in_result", False)

    log = logger("diffusiongpt")
    log.addFilter(is_news)
    try:
        yield
    finally:
        log.removeFilter(is_news)


class AsksOnce:
    """Asks whether a large pull is wanted; after a no, the other candidates are not asked about."""

    def __init__(self) -> None:
        self._declined = False

    def __call__(self, plan: PullPlan) -> bool:
        """Whether to pull."""
        self._declined = self._declined or not confirm(f"{plan}. Pull it?")
        return not self._declined


def make_folder(out: Path) -> Path:
    """The folder to save into, made before anything is drawn: a typing mistake should not cost a drawing.

    Raises:
        RequestError: If it is a file or cannot be made.
    """
    from diffusiongpt.errors import RequestError
    from diffusiongpt.files import expand_home

    folder = expand_home(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RequestError(
            f"cannot save into {out}: {error.strerror}", hint="Pass a folder you may write to."
        ) from error
    return folder


PICTURE_FILES = (".png", ".jpg", ".jpeg", ".webp", ".avif", ".bmp", ".gif", ".heic", ".tif", ".tiff")
"""What a name ends in that is meant as the name of a picture and not of a folder."""


def make_target(out: Path, pictures: int) -> Path:
    """Where to save: a folder that exists now, or a new `.png` file for a single picture.

    Raises:
        RequestError: If it cannot be written, is not a PNG, exists, or is one file for several pictures.
    """
    from diffusiongpt.errors import RequestError

    if out.suffix.lower() not in PICTURE_FILES or out.is_dir():
        return make_folder(out)
    target = make_folder(out.parent) / out.name
    if target.suffix.lower() != ".png":
        raise RequestError(
            f"{out.name}: only PNG carries the record of how it was drawn", hint=f"Use {out.with_suffix('.png').name}."
        )
    if pictures > 1:
        raise RequestError(f"{pictures} pictures do not fit into {out.name}", hint="Pass a folder with --out.")
    if target.exists():
        raise RequestError(f"{out} exists, and no picture is ever overwritten", hint="Pass another name, or a folder.")
    return target


STDIN = "-"
"""Stands for standard input where a prompt or a file is expected."""


def read_prompt(given: str) -> str:
    """The prompt that was typed; `-` for what standard input holds.

    Raises:
        FileError: If that is not UTF-8 text.
    """
    return read_text(STDIN).strip("\r\n") if given == STDIN else given


def read_lines(file: str) -> dict[int, str]:
    """The non-empty lines of a text file by their numbers, from 1; `-` for standard input.

    Bytes that are not UTF-8 come as surrogates, so that they spoil no other line than their own.

    Raises:
        FileError: If it cannot be read, or all of it is UTF-16.
    """
    # only line breaks part prompts; `splitlines` would part them at form feeds too
    lines = read_text(file, errors="surrogateescape").split("\n")
    return {number: line for number, line in enumerate(lines, 1) if line.strip()}


def read_text(file: str, errors: str = "strict") -> str:
    """The text of a file; `-` for standard input.

    Args:
        file: Its path.
        errors: What becomes of bytes that are not UTF-8, as `bytes.decode` has it.

    Raises:
        FileError: If it cannot be read as UTF-8 text.
    """
    from diffusiongpt.errors import FileError
    from diffusiongpt.files import expand_home

    try:
        data = sys.stdin.buffer.read() if file == STDIN else expand_home(file).read_bytes()
        if data.startswith((BOM_UTF16_LE, BOM_UTF16_BE)):
            errors = "strict"  # of such a file no line is UTF-8
        return data.decode("utf-8-sig", errors).replace("\r\n", "\n").replace("\r", "\n")
    except (OSError, ValueError) as error:
        name = "standard input" if file == STDIN else file
        hint = "Check the path." if isinstance(error, OSError) else "Save it as UTF-8 text."
        reason = "it is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else error
        raise FileError(f"cannot read {name}: {getattr(error, 'strerror', None) or reason}", hint=hint) from error
