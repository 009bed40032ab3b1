"""The command line offers every field of a request, with the model's own defaults."""

from __future__ import annotations

from typing import Any

import pytest
from typer.main import get_command

from diffusiongpt.apps.cli import COMMANDS, app
from diffusiongpt.apps.cli.common import REQUEST_OPTIONS
from diffusiongpt.flow import Policy, Request

FIELDS = {**Request.model_fields, **Policy.model_fields}
NOT_ON_A_COMMAND_LINE = {"prompt", "callback_on_step_end"}
"""The prompt is an argument, and a function cannot be typed on a command line."""


def test_every_field_has_an_option_with_the_same_default() -> None:
    """The command line accepts everything that Python accepts; the model checks both."""
    assert set(REQUEST_OPTIONS) == set(FIELDS) - NOT_ON_A_COMMAND_LINE
    for name, (_, default) in REQUEST_OPTIONS.items():
        assert default == FIELDS[name].default, name


@pytest.mark.parametrize("command", ["route", "generate", "compare"])
def test_the_same_options_on_each_command(command: str) -> None:
    """The commands that draw or route take all that a request says, and what to do it with."""
    group: Any = get_command(app)
    named = {parameter.name for parameter in group.get_command(None, command).params}
    assert {*REQUEST_OPTIONS, "prompt", "zoo", "llm", "device", "as_json"} <= named


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_of_commands_says_what_each_says_itself(name: str) -> None:
    """The list is written down, since building every command takes long; it begins as the command's own help does."""
    group: Any = get_command(app)
    command = group.get_command(None, name)
    assert command.name == name
    assert " ".join(command.help.split()).startswith(COMMANDS[name][1].rstrip("."))
