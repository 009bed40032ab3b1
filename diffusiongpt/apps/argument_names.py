"""Arguments as a door calls them: messages name Python's, and whoever reads them typed an option or a field.

The rooms know one name of each argument, that of `Request` and `Policy`, and write it as Python does: `seed=7`, or as
the first word of a mistake. Each door has a table of its own names, and its messages pass through it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

_VALUE = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|\([^()]*\)|\[[^\[\]]*\]|-?[\w.+]*\w|"""

_IN_JSON = {"True": "true", "False": "false", "None": "null"}
_NEEDS_NO_QUOTES = re.compile(r"[^\s()\[\]'\"]+")


@dataclass(frozen=True)
class Spelling:
    """How a door writes arguments.

    Attributes:
        names: Argument of `Request` or `Policy` -> its name at the door.
        write: Makes a text of a name and the value that Python writes after it, empty if there is none.
    """

    names: Mapping[str, str]
    write: Callable[[str, str], str]

    def __call__(self, text: str) -> str:
        """A message with every `argument=value`, and every name that no sentence has by chance, as the door has it."""
        return self._argument.sub(self._written, text)

    def mistake(self, text: str) -> str:
        """The message of a mistake in a request, whose first word may be the argument that it is in."""
        name = self.argument(text)
        if name is None or text.startswith(f"{name}="):
            return self(text)
        return f"{self.names[name]}{self(text.removeprefix(name))}"

    def argument(self, text: str) -> str | None:
        """The argument that is the first word of the message of a mistake."""
        word = re.match(r"\w+", text)
        return word[0] if word and word[0] in self.names else None

    def _written(self, match: re.Match[str]) -> str:
        name, value = match["name"], match["value"]
        if value is None:
            return self.names[name] if "_" in name else match[0]
        return self.write(self.names[name], value)

    @cached_property
    def _argument(self) -> re.Pattern[str]:
        names = "|".join(sorted(map(re.escape, self.names), key=len, reverse=True))
        return re.compile(rf"(?<![\w./?&-])(?P<name>{names})(?:=(?P<value>{_VALUE})|\b(?!=))")


def as_option(name: str, value: str) -> str:
    """An option and its value as a shell takes them: `--prefer fast`, `--local-only`; `no --llm` for none."""
    if value in ("", "True"):
        return name
    if value == "None":
        return f"no {name}"
    if value == "False":
        return f"--no-{name.removeprefix('--')}"
    bare = value[1:-1] if value[0] == value[-1] in "'\"" else value
    return f"{name} {bare if _NEEDS_NO_QUOTES.fullmatch(bare) else value}"


def as_field(name: str, value: str) -> str:
    """A field of JSON and its value: `seed=7`, `stream=true`."""
    return f"{name}={_IN_JSON.get(value, value)}" if value else name
