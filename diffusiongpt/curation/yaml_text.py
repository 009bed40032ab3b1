"""Changes to YAML text that leave every other byte as it was.

ruamel.yaml says where each value lies and renders what is new; the splice is ours. Its own round trip keeps
`model_zoo.yaml` to the byte, but changes 134 of the 264 lines of `taxonomy.yaml` by joining wrapped lists, writes
`[{id: a}]` as `[id: a]`, drops byte order marks, Windows line ends, `...` and `null`, and puts a new key below the
comment on the key that follows.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from io import StringIO
from typing import Any

YamlPath = Sequence[str | int]
_ABOVE_COMMENTS = 10_000
"""A column that no comment is indented to, so that new lines go above all comments."""

_BOOLEANS = ("yes", "no", "on", "off")
"""Words that older YAML takes for booleans."""

_BLANK_LINE_ABOVE = re.compile(r"\n[ \t\r]*\n(?:[ \t]*#[^\n]*\n)*[ \t]*-[ \t]+\Z")


class YamlEditError(ValueError):
    """The text cannot be changed in place, because of anchors, merge keys or unusual formatting."""


class YamlEdit:
    """Collects changes to a YAML mapping; `text` applies them and proves that nothing else changed.

    Args:
        text: A YAML document that is a mapping.
    """

    def __init__(self, text: str) -> None:
        from ruamel.yaml import YAML
        from ruamel.yaml.tokens import FlowEntryToken

        self._text = text
        self._root: Any = YAML(typ="rt", pure=True).compose(text)
        self._tokens = [
            (token.start_mark.index, token.end_mark.index)
            for token in YAML(typ="rt", pure=True).scan(text)
            if token.start_mark.index < token.end_mark.index and not isinstance(token, FlowEntryToken)
        ]
        self._expected = _parse(text)
        self._splices: list[tuple[int, int, str]] = []

    def put(self, path: YamlPath, value: Any, *, after: str | None = None) -> None:
        """Set a key of a mapping.

        Args:
            path: Keys and indices that lead to the key.
            value: The new value, written on one line.
            after: The existing key that a new key follows; by default the last one.

        Raises:
            YamlEditError: If the mapping does not exist, or the key holds a list or mapping.
        """
        *above, key = path
        mapping = self._node(above)
        keys = [each.value for each, _ in mapping.value]
        if key in keys:
            self._replace(mapping, keys.index(key), _inline(value))
        elif not keys:
            self._splices.append((mapping.start_mark.index, mapping.end_mark.index, _inline({key: value})))
        else:
            end = self._end(mapping, keys.index(after) if after in keys else len(keys) - 1)
            new = f"{key}: {_inline(value)}"
            if mapping.flow_style:
                self._splices.append((end, end, f", {new}"))
            else:
                indent = " " * mapping.value[0][0].start_mark.column
                self._insert(end, f"{indent}{new}\n", column=_ABOVE_COMMENTS)
        self._wanted(above)[key] = value

    def extend(self, path: YamlPath, values: Sequence[Any]) -> None:
        """Append values to a list, which is created if it does not exist.

        Args:
            path: Keys and indices that lead to the list.
            values: The new entries; in a list at the top of the file each key of an entry gets a line of its own.

        Raises:
            YamlEditError: If the mapping that holds the list does not exist.
        """
        *above, key = path
        mapping = self._node(above)
        known = self._wanted(above)
        old = known.get(key) or []
        if old:
            self._append(self._node(path), values)
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
        pieces, position = [], 0
        for start, end, new in sorted(self._splices, key=lambda splice: splice[:2]):
            pieces += [self._text[position:start], new.replace("\n", newline)]
            position = end
        text = "".join([*pieces, self._text[position:]])
        try:
            is_right = _parse(text) == self._expected
        except (YAMLError, ValueError) as error:
            raise YamlEditError("its formatting does not allow a change in place") from error
        if not is_right:
            raise YamlEditError("its formatting does not allow a change in place, perhaps because of anchors")
        return text

    def _node(self, path: YamlPath) -> Any:
        node = self._root
        for part in path:
            try:
                node = (
                    node.value[part] if isinstance(part, int) else {key.value: value for key, value in node.value}[part]
                )
            except (KeyError, IndexError, TypeError, ValueError) as error:
                raise YamlEditError(f"it has no {'.'.join(map(str, path))}") from error
        return node

    def _wanted(self, path: YamlPath) -> Any:
        """The expected data at a place, to be changed; copied on the way, since an anchor may share it."""
        data = self._expected = copy.copy(self._expected)
        for part in path:
            data[part] = copy.copy(data[part])
            data = data[part]
        return data

    def _replace(self, mapping: Any, index: int, new: str) -> None:
        node, end = mapping.value[index][1], self._end(mapping, index)
        if node.id != "scalar" and node.value:
            raise YamlEditError("replacing a list or mapping would lose the comments in it")
        if _is_empty(node):
            self._splices.append((end, end, f" {new}"))
        else:
            self._splices.append((node.start_mark.index, node.end_mark.index, new))

    def _start_list(self, key: str, values: Sequence[Any]) -> None:
        lines = "".join(_item(value, dash=2, content=4) for value in values)
        keys = [each.value for each, _ in self._root.value]
        if key not in keys:
            self._insert(self._end(self._root, len(keys) - 1), f"\n{key}:\n{lines}", column=1)
            return
        node, end = self._node([key]), self._end(self._root, keys.index(key))
        if not _is_empty(node):  # `[]` or `null`; a comment behind it stays
            self._splices.append((node.start_mark.index, node.end_mark.index, ""))
        self._insert(end, lines, column=_ABOVE_COMMENTS)

    def _append(self, sequence: Any, values: Sequence[Any]) -> None:
        last = sequence.value[-1]
        end = self._end(sequence, len(sequence.value) - 1)
        if sequence.flow_style:
            self._splices.append((end, end, "".join(f", {_inline(value)}" for value in values)))
            return
        dash, content = sequence.start_mark.column, last.start_mark.column
        is_only = len(sequence.value) == 1
        has_gap = last.id == "mapping" if is_only else _BLANK_LINE_ABOVE.search(self._text, 0, last.start_mark.index)
        items = (_item(value, dash=dash, content=content) for value in values)
        self._insert(end, "".join(("\n" if has_gap else "") + item for item in items), column=content)

    def _insert(self, at: int, lines: str, *, column: int) -> None:
        """Insert lines below the line of a position and the comments below it that are indented to a column."""
        found = re.compile(rf"[^\n]*(?:\n[ \t]{{{column},}}#[^\n]*)*\n?").match(self._text, at)
        position = found.end() if found else at
        is_cut = position == len(self._text) and not self._text.endswith("\n")
        is_first = all(start != position for start, _, _ in self._splices)
        self._splices.append((position, position, "\n" + lines if is_cut and is_first else lines))

    def _end(self, collection: Any, index: int) -> int:
        """Where the text of a child ends; the marks of a block lie behind the comments that follow it."""
        starts = [(child[0] if isinstance(child, tuple) else child).start_mark.index for child in collection.value]
        bound = [*starts, collection.end_mark.index - bool(collection.flow_style)][index + 1]
        start, end = max(((start, end) for start, end in self._tokens if start < bound), default=(0, 0))
        return start + len(self._text[start:end].rstrip())


def dump_yaml(value: Mapping[str, Any]) -> str:
    """A mapping as YAML text: each key on a line of its own, with its value on the same line."""
    from ruamel.yaml.comments import CommentedMap

    return _dump(CommentedMap((key, _flow(item)) for key, item in value.items()))


def _item(value: Any, *, dash: int, content: int) -> str:
    """A list entry with its dash and its content at these columns."""
    lines = dump_yaml(value).splitlines() if isinstance(value, Mapping) else [_inline(value)]
    first = " " * dash + "-" + " " * (content - dash - 1) + lines[0]
    return "\n".join([first, *(" " * content + line for line in lines[1:])]) + "\n"


def _inline(value: Any) -> str:
    """A value on one line, valid inside brackets as well."""
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
        # ruamel leaves some characters unquoted that it cannot read back, such as a leading `?`
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
