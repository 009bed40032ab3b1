"""The one door through which the command line prints.

What is printed may be a stranger's: a description in a zoo file, the record in a picture, the name of a file. Nothing
of it reaches the terminal as a command to the terminal, or as markup.
"""

from __future__ import annotations

import json
import logging
import sys
from typing import TYPE_CHECKING, Any
from unicodedata import east_asian_width

import typer

from diffusiongpt.safe_text import json_safe, printable, safe

if TYPE_CHECKING:
    from collections.abc import Iterator

    from PIL.Image import Image
    from rich.console import Console, RenderableType
    from rich.segment import Segment
    from rich.text import Text


def show(text: object = "", *, err: bool = False, fg: str | None = None) -> None:
    """Lines of a result on stdout, or with `err` on stderr."""
    typer.secho(printable(str(text)), err=err, fg=fg)


def show_wrapped(text: str, indent: str = "") -> None:
    """A paragraph of a result, wrapped between words."""
    line = ""
    for word in printable(text).split():
        longer = f"{line} {word}" if line else f"{indent}{word}"
        if line and _columns(longer) > _LINE:
            show(line)
            longer = f"{indent}{word}"
        line = longer
    show(line)


def cut(text: str) -> str:
    """The beginning of a text in one line, with dots where something is left out."""
    text = " ".join(printable(text).split())
    if _columns(text) <= _LINE:
        return text
    while _columns(text) > _LINE - 4:
        text = text[:-1]
    return f"{text.rstrip()} ..."


def _columns(text: str) -> int:
    """Columns of a terminal that a text takes: a Chinese character is as wide as two Latin letters."""
    return len(text) + sum(east_asian_width(character) in "WF" for character in text)


_LINE = 78
"""Columns of a line of a paragraph, which fits a terminal of 80."""


def say(text: str) -> None:
    """What is not a result, on stderr."""
    typer.echo(safe(text), err=True)


def print_json(value: Any, *, indent: int | None = 2) -> None:
    """JSON on stdout, in the script of the prompt where stdout can write it."""
    ascii_only = not (sys.stdout.encoding or "utf-8").lower().startswith("utf")
    typer.echo(json_safe(json.dumps(value, ensure_ascii=ascii_only, indent=indent, default=str)))


def write_data(data: bytes) -> None:
    """A file on stdout: its bytes, unless a person looks at them."""
    if sys.stdout.isatty():
        show(data.decode("utf-8", errors="replace").rstrip("\n"))
    else:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()


def confirm(question: str, *, abort: bool = False) -> bool:
    """Ask for a yes on stderr."""
    return typer.confirm(printable(question), err=True, abort=abort)


def prompt_for_line() -> None:
    """Show on stderr that the next line is awaited."""
    typer.echo("> ", err=True, nl=False)


def ask(question: str) -> str:
    """Ask for a line on stderr; empty if none is given."""
    return str(typer.prompt(printable(question), default="", show_default=False, err=True))


def show_styled(*parts: RenderableType) -> None:
    """Tables and trees on stdout; text in them is text, whatever markup it looks like."""
    console = make_console()
    for part in parts:
        console.print(part, highlight=False)


_PICTURE_COLUMNS = 32


def can_show_pictures() -> bool:
    """Whether stdout is a terminal, and the library that shows pictures there is installed (extra `chat`).

    On its import the library asks the terminal what it can do, and takes what is typed meanwhile for the answer; so
    ask before anything is typed.
    """
    if not sys.stdout.isatty():
        return False
    try:
        import textual_image.renderable  # noqa: F401  # only whether it is there
    except ImportError:
        return False
    return True


def show_picture(image: Image) -> None:
    """A small picture on the terminal: by the protocol of kitty, by sixels, or in coloured blocks."""
    if not can_show_pictures():
        return
    from rich.console import Console
    from textual_image.renderable import Image as Renderable

    # of a terminal that does not say how large its cells are it warns with a traceback, and then takes a usual size
    logging.getLogger("textual_image").setLevel(logging.ERROR)

    # a cell is about twice as high as it is wide
    rows = max(1, round(_PICTURE_COLUMNS * image.height / image.width / 2))
    # not through the console that escapes: these sequences are made of pixels here, and not of a text
    Console().print(Renderable(image, width=_PICTURE_COLUMNS, height=rows))


def make_console(*, err: bool = False) -> Console:
    """A console of rich that takes no text as markup."""
    # rich takes longer to import than the rest of the command line
    from rich.console import Console
    from rich.segment import Segment

    class Plain(Console):
        """Every text passes here: cells and labels, too."""

        def render_str(self, text: str, **options: Any) -> Text:
            """A text as it is, with controls written out."""
            return super().render_str(printable(text), **{**options, "markup": False, "emoji": False})

        def render(self, renderable: Any, options: Any = None) -> Iterator[Segment]:
            """What is made of a renderable, which may be a text that did not pass `render_str`."""
            for one in super().render(renderable, options):
                yield one if one.control else Segment(printable(one.text), one.style)

    return Plain(stderr=err, markup=False, emoji=False, highlight=False)
