"""`diffusiongpt chat`: a conversation on the terminal, kept in a file."""

from __future__ import annotations

import sys
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diffusiongpt.apps.cli.common import (
    READS,
    REQUEST_OPTIONS,
    DeviceOption,
    JsonOption,
    LLMOption,
    YesOption,
    ZooOption,
    is_terminal,
    make_folder,
    open_studio,
    takes_request,
)
from diffusiongpt.apps.cli.printing import (
    can_show_pictures,
    print_json,
    prompt_for_line,
    say,
    show,
    show_picture,
    show_wrapped,
)
from diffusiongpt.apps.cli.reporting import error_object, message_of, with_options

if TYPE_CHECKING:
    from collections.abc import Iterator

    from diffusiongpt.conversation import Conversation, Turn

_HELP = """\
Say what to draw, and then what to change:
"but blue", "give the cat a hat", "another one", "the first one at night".
  /image FILE  the next thing you say is about this picture
  /undo        take back the last turn
  /help        show this
  /quit        end; the conversation is in its file"""

_FIRST = ("image", "mask_image", "control_image", "strength", "seed")
"""Options that are for the first turn alone."""


@takes_request
def chat(
    options: dict[str, Any],
    resume: Annotated[
        Path | None, typer.Option(help="Go on with the conversation in this file.", show_default=False), READS
    ] = None,
    zoo: ZooOption = None,
    llm: LLMOption = None,
    out: Annotated[Path, typer.Option(help="Folder for the conversation and its pictures.")] = Path(),
    device: DeviceOption = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Draw in a conversation: later turns change the pictures of earlier ones."""
    from diffusiongpt.conversation import Conversation

    folder = make_folder(out)
    with open_studio(zoo, device=device, llm=llm, yes=yes) as studio:
        talk = Conversation.load(resume, studio=studio) if resume else studio.conversation()
        file = resume or _free(folder)
        if is_terminal():
            can_show_pictures()
            say(f"{_HELP}\nThe conversation is kept in {file}.")
        all_done = _converse(talk, file, options, as_json=as_json)
    if not all_done:
        raise typer.Exit(1)


def _converse(talk: Conversation, file: Path, options: dict[str, Any], *, as_json: bool) -> bool:
    """Take turns until the end of input; whether every one could be done."""
    from diffusiongpt.errors import DiffusionGPTError

    all_done, first = True, {name: options[name] for name in _FIRST}
    always = {name: value for name, value in options.items() if name not in _FIRST and value is not None}
    if always["num_images_per_prompt"] == REQUEST_OPTIONS["num_images_per_prompt"][1]:
        del always["num_images_per_prompt"]  # so that a turn may say how many: "three more"
    for line in _lines():
        try:
            if line.startswith("/"):
                first |= _command(talk, file, line)
                continue
            turn = talk.say(line, **{name: value for name, value in first.items() if value}, **always)
            first = {}
            try:
                file = _save(talk, file)
            finally:
                _show(turn, talk.paths(turn), as_json=as_json)
        except DiffusionGPTError as error:
            all_done = False
            if as_json:
                print_json({"input": line, "error": error_object(error)}, indent=None)
            else:
                say(f"error: {message_of(error)}\nhint: {with_options(error.hint)}")
        except KeyboardInterrupt:
            say("stopped")
        except EOFError:
            break
    return all_done


def _save(talk: Conversation, file: Path) -> Path:
    """Save a conversation, under another name where its file can no longer be its own; the file."""
    from diffusiongpt.errors import ConversationError

    try:
        return talk.save(file)
    except ConversationError as error:
        other = talk.save(_free(file.parent))
        say(f"{message_of(error)}; from now on the conversation is kept in {other}.")
        return other


def _command(talk: Conversation, file: Path, line: str) -> dict[str, Any]:
    """Carry out a line that begins with a slash; options for the next turn.

    Raises:
        EOFError: To end the conversation.
        DiffusionGPTError: If it cannot be carried out.
    """
    from diffusiongpt.errors import RequestError
    from diffusiongpt.files import expand_home
    from diffusiongpt.flow import read_image

    name, _, argument = line[1:].partition(" ")
    if name in ("quit", "exit", "q"):
        raise EOFError
    if name == "image" and argument.strip():
        path = expand_home(argument.strip())
        read_image(path)
        return {"image": path}
    if name == "undo":
        say(f"took back: {talk.undo().text}")
        talk.save(file)
    elif name == "help":
        say(_HELP)
    else:
        raise RequestError(f"/{name} is not a command here", hint="Use /image FILE, /undo, /help or /quit.")
    return {}


def _lines() -> Iterator[str]:
    """The lines that a person types, or those of standard input."""
    while True:
        if is_terminal():
            prompt_for_line()
        try:
            line = sys.stdin.readline()
        except KeyboardInterrupt:
            say("")
            continue
        if not line:
            return
        if line.strip():
            yield line.strip()


def _show(turn: Turn, paths: tuple[Path, ...], *, as_json: bool) -> None:
    if as_json:
        said = {"input": turn.text, "kind": turn.kind, "refers_to": turn.refers_to, "description": turn.description}
        pictures = {"images": [str(path) for path in paths], "reply": turn.reply}
        drawn = {"expert": turn.generation.drawn_by, "seeds": list(turn.generation.seeds)} if turn.generation else {}
        print_json({**said, **drawn, **pictures}, indent=None)
        return
    if turn.generation:
        for image in turn.generation.images:
            show_picture(image)
    show_wrapped(turn.reply)
    for path in paths:
        show(path)


def _free(folder: Path) -> Path:
    """A name for a new conversation that no file has."""
    names = (folder / f"conversation{f'-{number}' if number > 1 else ''}.json" for number in count(1))
    return next(path for path in names if not path.exists())
