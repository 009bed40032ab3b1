"""Changes to YAML text that leave every other byte as it was.

ruamel.yaml says where each value lies and renders what is new. Writing the whole file back with it would keep the
comments too, but not where long lists are wrapped, nor how far things are indented.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from io import StringIO
from typing import Any

YamlPath = Sequence[str | int]
_NO_COLUMN = 10_000
_BOOLEANS = ("yes", "no", "on", "off")
"""Words that older YAML takes for booleans."""


class YamlEditError(ValueError):
    """The text cannot be changed in place, because of anchors, merge keys, or an odd way of writing."""


class YamlEdit:
    """Collects changes to a YAML mapping; `text` makes them all, and proves that nothing else changed.

    Args:
        text: A YAML document that is a mapping.
    """

    def __init__(self, text: str) -> None:
        from ruamel.yaml import YAML

        self._text = text
        self._root: Any = YAML(typ="rt", pure=True).compose(text)
        self._expected = _parse(text)
        self._splices: list[tuple[int, int, str]] = []

    def put(self, path: YamlPath, value: Any, *, after: str | None = None) -> None:
        """Set a key of a mapping.

        Args:
            path: Keys and indices down to the key.
            value: What it gets, written on one line.
            after: Key behind which a new key goes; behind the last one if absent.

        Raises:
            YamlEditError: If the place is not there.
        """
        *above, key = path
        mapping = self._node(above)
        pairs = _pairs(mapping)
        if key in pairs:
            self._replace(pairs[str(key)], _inline(value))
        elif not pairs:
            self._splice(mapping.start_mark.index, mapping.end_mark.index, _inline({key: value}))
        else:
            self._add_pair(mapping, pairs.get(after or "") or list(pairs.values())[-1], f"{key}: {_inline(value)}")
        self._wanted(above)[key] = value

    def extend(self, path: YamlPath, values: Sequence[Any]) -> None:
        """Append values to a list, which is made if it is not there.

        Args:
            path: Keys and indices down to the list.
            values: What is appended; at the top of the file, with an entry for each of their keys on a line.

        Raises:
            YamlEditError: If the place is not there.
        """
        *above, key = path
        mapping = self._node(above)
        known = self._wanted(above)
        old = known.get(key) or []
        if old:
            self._append(_pairs(mapping)[str(key)][1], values)
        elif above or mapping.flow_style:
            self.put(path, list(values))
        else:
            self._start_list(str(key), values)
        known[key] = [*old, *values]

    def text(self) -> str:
        """The changed text.

        Raises:
            YamlEditError: If it would not say exactly what was asked for.
        """
        from ruamel.yaml.error import YAMLError

        newline = "\r\n" if "\r\n" in self._text else "\n"
        text = self._text
        for start, end, new in sorted(self._splices, key=lambda splice: splice[:2], reverse=True):
            text = text[:start] + new.replace("\n", newline) + text[end:]
        try:
            is_right = _parse(text) == self._expected
        except (YAMLError, ValueError) as error:
            raise YamlEditError("it is written in a way that cannot be changed in place") from error
        if not is_right:
            raise YamlEditError("it is written in a way that cannot be changed in place, perhaps with anchors")
        return text

    def _node(self, path: YamlPath) -> Any:
        node = self._root
        for part in path:
            try:
                node = node.value[part] if isinstance(part, int) else _pairs(node)[part][1]
            except (KeyError, IndexError, TypeError) as error:
                raise YamlEditError(f"it has no {'.'.join(map(str, path))}") from error
        return node

    def _wanted(self, path: YamlPath) -> Any:
        """What a place is to hold, to be changed; copied on the way, since places may share it through an anchor."""
        data = self._expected = copy.copy(self._expected)
        for part in path:
            data[part] = copy.copy(data[part])
            data = data[part]
        return data

    def _splice(self, start: int, end: int, new: str) -> None:
        # what is inserted at one place stays in the order in which it was asked for
        for index, (known_start, known_end, known) in enumerate(self._splices):
            if known_start == known_end == start == end:
                self._splices[index] = (start, end, known + new)
                return
        self._splices.append((start, end, new))

    def _replace(self, pair: tuple[Any, Any], new: str) -> None:
        node = pair[1]
        if node.id != "scalar" and node.value:
            raise YamlEditError("a value that holds others is not replaced: comments in it would be lost")
        if _is_empty(node):
            end = self._end(*pair)
            self._splice(end, end, f" {new}")
        else:
            self._splice(node.start_mark.index, node.end_mark.index, new)

    def _add_pair(self, mapping: Any, anchor: tuple[Any, Any], new: str) -> None:
        end = self._end(*anchor)
        if mapping.flow_style:
            self._splice(end, end, f", {new}")
        else:
            self._insert(end, " " * anchor[0].start_mark.column + new + "\n", column=_NO_COLUMN)

    def _start_list(self, key: str, values: Sequence[Any]) -> None:
        lines = "".join(_item(value, dash=2, content=4) for value in values)
        pairs = _pairs(self._root)
        if key not in pairs:
            last = list(pairs.values())[-1]
            self._insert(self._end(*last), f"\n{key}:\n{lines}", column=1)
            return
        node = pairs[key][1]
        end = self._end(*pairs[key])
        if not _is_empty(node):  # `[]` or `null`; a comment behind it stays
            self._splice(node.start_mark.index, node.end_mark.index, "")
        self._insert(end, lines, column=_NO_COLUMN)

    def _append(self, sequence: Any, values: Sequence[Any]) -> None:
        last = sequence.value[-1]
        end = self._end(sequence, last)
        if sequence.flow_style:
            self._splice(end, end, "".join(f", {_inline(value)}" for value in values))
            return
        dash, content = sequence.start_mark.column, last.start_mark.column
        gap = "\n" if self._has_gaps(sequence) else ""
        self._insert(end, "".join(gap + _item(value, dash=dash, content=content) for value in values), column=content)

    def _has_gaps(self, sequence: Any) -> bool:
        """Whether a blank line parts the last two entries of a list; of one entry, whether it is a mapping."""
        if len(sequence.value) == 1:
            return bool(sequence.value[0].id == "mapping")
        before, last = sequence.value[-2:]
        between = self._text[self._end(sequence, before) : last.start_mark.index].split("\n")
        return any(not line.strip() for line in between[1:-1])

    def _insert(self, at: int, lines: str, *, column: int) -> None:
        """Insert lines below the one that `at` is on, and below the comments from `column` on that follow it."""
        position = self._next_line(at)
        while self._is_comment(position, column):
            position = self._next_line(position)
        is_cut = not self._text.endswith("\n") and position == len(self._text)
        is_first = all(splice[0] != position for splice in self._splices)
        self._splice(position, position, "\n" + lines if is_cut and is_first else lines)

    def _next_line(self, at: int) -> int:
        found = self._text.find("\n", at)
        return len(self._text) if found < 0 else found + 1

    def _is_comment(self, at: int, column: int) -> bool:
        line = self._text[at : self._next_line(at)]
        return line.lstrip().startswith("#") and len(line) - len(line.lstrip()) >= column

    def _end(self, before: Any, node: Any) -> int:
        """Where the last value inside a node ends; the marks of a block are behind its comments."""
        if node.start_mark.index < before.start_mark.index:
            return int(before.end_mark.index)  # an alias: the node lies where its anchor is
        if _is_empty(node) and before is not node:
            return self._text.find(":", before.end_mark.index) + 1  # the mark of nothing is somewhere below
        if node.id == "scalar" or node.flow_style or not node.value:
            start, end = node.start_mark.index, node.end_mark.index
            return int(start + len(self._text[start:end].rstrip()))
        if node.id == "mapping":
            return self._end(*node.value[-1])
        return self._end(node, node.value[-1])


def dump_yaml(value: Mapping[str, Any]) -> str:
    """A mapping as YAML text: its keys on lines of their own, what they hold on one line each."""
    from ruamel.yaml.comments import CommentedMap

    return _dump(CommentedMap((key, _flow(item)) for key, item in value.items()))


def _item(value: Any, *, dash: int, content: int) -> str:
    """A list entry with the dash and what it holds at these columns."""
    lines = dump_yaml(value).splitlines() if isinstance(value, Mapping) else [_inline(value)]
    first = " " * dash + "-" + " " * (content - dash - 1) + lines[0]
    return "\n".join([first, *(" " * content + line for line in lines[1:])]) + "\n"


def _inline(value: Any) -> str:
    """A value on one line, as it may stand inside brackets."""
    # a mapping around it, since a list leaves out the braces of a single pair
    return _dump(_flow({"k": value})).strip().removeprefix("{k: ").removesuffix("}")


def _flow(value: Any) -> Any:
    from ruamel.yaml.comments import CommentedMap, CommentedSeq
    from ruamel.yaml.scalarstring import SingleQuotedScalarString

    if isinstance(value, Mapping):
        made: Any = CommentedMap((key, _flow(item)) for key, item in value.items())
        made.fa.set_flow_style()
    elif isinstance(value, list | tuple):
        made = CommentedSeq(_flow(item) for item in value)
        made.fa.set_flow_style()
    elif isinstance(value, str) and (value in _BOOLEANS or not value[:1].isalnum()):
        # ruamel leaves some signs bare, `?` at the start of an entry among them, that it does not read back
        made = SingleQuotedScalarString(value)
    else:
        made = value
    return made


def _dump(value: Any) -> str:
    from ruamel.yaml import YAML

    yaml, text = YAML(typ="rt", pure=True), StringIO()
    yaml.width = 1_000_000
    yaml.allow_unicode = True
    yaml.dump(value, text)
    return text.getvalue()


def _parse(text: str) -> Any:
    from ruamel.yaml import YAML

    return YAML(typ="safe", pure=True).load(text)


def _is_empty(node: Any) -> bool:
    return bool(node.start_mark.index == node.end_mark.index)


def _pairs(mapping: Any) -> dict[str, tuple[Any, Any]]:
    return {key.value: (key, value) for key, value in mapping.value if key.id == "scalar"}
