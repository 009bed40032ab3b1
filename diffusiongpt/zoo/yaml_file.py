"""YAML of strangers as plain data: read from the parser's events, within limits, before anything is made of it.

A parser's own data would be complete before it could be measured, and aliases let ten lines stand for a billion
values. The grammar is PyYAML's; which plain words are numbers and booleans is the core schema of YAML 1.2.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import yaml

MAX_VALUES = 1_000_000
"""Most values of a file, with every alias counted as what it stands for: some ten thousand experts have so many."""

MAX_ENTRIES = 20_000
"""Most entries of a list, and keys of a mapping."""

MAX_ENTRY_VALUES = 5_000
"""Most values of one entry of a list at the top, such as one expert."""

MAX_DEPTH = 20
"""Deepest nesting; an expert takes six."""

MAX_DIGITS = 40
"""Most characters of a number."""

_STR = "tag:yaml.org,2002:str"
_TAGS = frozenset({None, "!", _STR, "tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"})
_ENTRY_DEPTH = 2
_PLAIN = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_WHOLE = re.compile(r"[-+]?[0-9][0-9_]*|0o[0-7]+|0x[0-9a-fA-F]+")
_NUMBER = re.compile(r"[-+]?(\.[0-9]+|[0-9][0-9_]*(\.[0-9_]*)?)([eE][-+]?[0-9]+)?")
_NO_NUMBER = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_DATE = re.compile(r"\d{4}-\d\d?-\d\d?(?:(?:[Tt]|\s+)\d.*)?")


class YamlError(ValueError):
    """A text that is not YAML, or more than a zoo file may be.

    Attributes:
        line: Line of the mistake, from 1; `None` if it is not known.
    """

    def __init__(self, problem: str, line: int | None = None) -> None:
        super().__init__(problem)
        self.line = line


def read_yaml(text: str) -> Any:
    """The data of one YAML document.

    Raises:
        YamlError: If it is not YAML, or has more than the limits of this module.
    """
    builder = _Builder()
    take = builder.take
    with _translated():
        for event in _events(text):
            take(event)
    return builder.root


def line_of(text: str, location: tuple[str | int, ...]) -> int:
    """Line, from 1, of a key in YAML text, or of the nearest enclosing entry if the key is missing."""
    with _translated():
        return _line_in(_events(text), location)


def _line_in(events: Iterator[Any], location: tuple[str | int, ...]) -> int:
    best, depth = 1, 0
    path: list[Any] = []
    for event in events:
        opens = isinstance(event, yaml.CollectionStartEvent)
        if isinstance(event, yaml.CollectionEndEvent):
            path.pop()
            if len(path) <= depth and depth and path and not path[-1].on_way:
                return best
            continue
        if not (opens or isinstance(event, yaml.ScalarEvent | yaml.AliasEvent)):
            continue
        place = path[-1] if path else None
        if place is not None:
            at = place.next(event)
            wanted = place.on_way and len(path) - 1 < len(location) and location[len(path) - 1] == at
            if at is not None and wanted and len(path) > depth:
                best, depth = place.line + 1, len(path)
        if opens:
            on_way = place is None or (place.on_way and place.matches(location, len(path) - 1))
            path.append(_Place(is_mapping=isinstance(event, yaml.MappingStartEvent), on_way=on_way))
    return best


class _Place:
    """Where the walk of `line_of` is in one collection."""

    def __init__(self, *, is_mapping: bool, on_way: bool) -> None:
        self.is_mapping = is_mapping
        self.on_way = on_way
        self.line = 0
        self._key: Any = None
        self._awaits_value = False
        self._index = -1

    def next(self, event: Any) -> str | int | None:
        """Take a child; the key or index that it is, and `None` for the value of a key."""
        if not self.is_mapping:
            self._index += 1
            self._key, self.line = self._index, event.start_mark.line
            return self._index
        if self._awaits_value:
            self._awaits_value = False
            return None
        self._awaits_value = True
        self._key, self.line = getattr(event, "value", None), event.start_mark.line
        return str(self._key)

    def matches(self, location: tuple[str | int, ...], depth: int) -> bool:
        """Whether the collection that opens now is the part of a location at a depth."""
        return depth < len(location) and location[depth] == self._key


def _events(text: str) -> Iterator[Any]:
    # the parser of libyaml is fifty times faster, where PyYAML was built with it
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(text)
    return iter(loader.get_event, None)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or str(error).partition("\n")[0]
        raise YamlError(problem, mark.line + 1 if mark else None) from error
    except YamlError:
        raise
    except (ValueError, RecursionError) as error:
        raise YamlError(str(error)) from error


_ABSENT: Any = object()


class _Open:
    """A list or mapping that is being read."""

    __slots__ = ("anchor", "key", "limit", "line", "merged", "value", "weight")

    def __init__(self, event: Any, limit: int) -> None:
        self.value: Any = {} if type(event) is yaml.MappingStartEvent else []
        self.anchor: str | None = event.anchor
        self.line = _line(event)
        self.limit = limit
        self.weight = 1
        self.key: Any = _ABSENT
        self.merged: list[Any] = []

    def add(self, value: Any, weight: int, event: Any) -> None:
        """Take a child: an entry of a list, or in turn a key and its value."""
        inside = self.value
        if type(inside) is list:
            inside.append(value)
        elif self.key is not _ABSENT:
            if self.key == "<<":
                self.merged += value if isinstance(value, list) else [value]
            else:
                inside[self.key] = value
            self.key = _ABSENT
        elif type(value) is not str:
            raise YamlError("a key must be text", _line(event))
        elif value in inside:
            raise YamlError(f"found duplicate key {value!r}", _line(event))
        else:
            self.key = value
        self.weight += weight
        if self.weight > self.limit:
            raise YamlError(f"more than {self.limit:,} values in one place, with its aliases", _line(event))
        if len(inside) > MAX_ENTRIES:
            raise YamlError(f"more than {MAX_ENTRIES} entries in one place", _line(event))

    def close(self) -> Any:
        """The whole value, with what is merged into it: the first that has a key counts."""
        for other in self.merged:
            if not isinstance(other, dict):
                raise YamlError("'<<' merges mappings alone", self.line)
            for key, value in other.items():
                self.value.setdefault(key, value)
        return self.value


class _Builder:
    """Makes data of events, and counts."""

    def __init__(self) -> None:
        self.root: Any = None
        self._documents = 0
        self._open: list[_Open] = []
        self._anchors: dict[str, tuple[Any, int]] = {}
        self._words: dict[str, Any] = {}

    def take(self, event: Any) -> None:
        """Take the next event. Nine of ten are scalars, and a large zoo has a million."""
        kind = type(event)
        if kind is yaml.ScalarEvent:
            value = self._plain(event) if event.implicit[0] and event.tag is None else _text(event)
            if event.anchor:
                self._anchors[event.anchor] = value, 1
            self._add(value, 1, event)
        elif kind is yaml.AliasEvent:
            self._add(*self._target(event.anchor, event), event)
        elif kind is yaml.MappingStartEvent or kind is yaml.SequenceStartEvent:
            _check_tag(event)
            self._open.append(_Open(event, MAX_ENTRY_VALUES if len(self._open) >= _ENTRY_DEPTH else MAX_VALUES))
            if len(self._open) > MAX_DEPTH:
                raise YamlError(f"more than {MAX_DEPTH} levels of nesting", _line(event))
        elif kind is yaml.MappingEndEvent or kind is yaml.SequenceEndEvent:
            done = self._open.pop()
            value = done.close()
            if done.anchor:
                self._anchors[done.anchor] = value, done.weight
            self._add(value, done.weight, event)
        elif kind is yaml.DocumentStartEvent:
            self._documents += 1
            if self._documents > 1:
                raise YamlError("expected one document, and found another document", _line(event))

    def _plain(self, event: Any) -> Any:
        """The value of a word without quotes, which a file commonly has many times."""
        text = event.value
        value = self._words.get(text, _ABSENT)
        if value is _ABSENT:
            value = self._words[text] = _value_of(text, event)
        return value

    def _target(self, anchor: str, event: Any) -> tuple[Any, int]:
        if any(one.anchor == anchor for one in self._open):
            raise YamlError(f"the anchor {anchor!r} contains itself", _line(event))
        if anchor not in self._anchors:
            raise YamlError(f"found undefined alias {anchor!r}", _line(event))
        return self._anchors[anchor]

    def _add(self, value: Any, weight: int, event: Any) -> None:
        if self._open:
            self._open[-1].add(value, weight, event)
        else:
            self.root = value


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1


def _check_tag(event: Any) -> None:
    if event.tag not in _TAGS:
        raise YamlError(f"the tag {event.tag!r} is not part of a zoo file", _line(event))


def _text(event: Any) -> Any:
    _check_tag(event)
    return event.value


def _value_of(text: str, event: Any) -> Any:
    """The value of a word, by the core schema."""
    if text in _PLAIN:
        return _PLAIN[text]
    if text[0] not in "+-.0123456789":
        return text
    if _NO_NUMBER.fullmatch(text):
        return float(text.replace(".", "", 1))
    is_whole, is_number = _WHOLE.fullmatch(text), _NUMBER.fullmatch(text)
    if (is_whole or is_number) and len(text) > MAX_DIGITS:
        raise YamlError(f"a number of {len(text)} characters", _line(event))
    if is_whole:
        return int(text.lstrip("+").replace("_", ""), 0 if text[1:2] in ("o", "x") else 10)
    if is_number:
        return float(text.replace("_", ""))
    if _DATE.fullmatch(text):
        raise YamlError(f"{text[:MAX_DIGITS]!r} looks like a date", _line(event))
    return text
