"""Edits of YAML text make the requested change and keep every other byte."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from diffusiongpt.curation import YamlEdit, YamlEditError, dump_yaml

ROOT = Path(__file__).parents[2]
ENTRY = {
    "id": "new",
    "repo": "a/b",
    "tags": {"styles": ["x", "no"]},
    "license": {"id": "mit", "commercial": "yes"},
    "description": "It's: a # 'thing'\n水墨 {and} [so, on]",
}
SHAPES = {
    "no list": "schema_version: 1\n",
    "an empty key": "experts:\ntaxonomy:\n",
    "an empty list": "experts: []  # none yet\nother: 1\n",
    "null": "experts: null # x\nother: 1\n",
    "lists at the margin": "experts:\n- id: a\n  repo: x # why\n  # belongs to a\n# belongs to neither\n",
    "a blank line between": "experts:\n  - id: a\n\n  - id: b\n    d: |\n      text\n\n# tail\nother: 1",
    "wide dashes": "# head\nexperts:\n    -   id: a\n        tags: {styles: [q,]}\n        repo: 'x'",
    "one line": "experts: [{id: a}]  # all",
    "a comma too many": "experts: [{id: a},]",
    "braces": "{schema_version: 1}",
    "Windows": "experts:\r\n  - id: a\r\n    sources:\r\n      - x\r\n",
    "an end mark": "---\nexperts:\n  - id: a\n...\n",
    "an anchor elsewhere": "base: &b {k: 1}\nexperts:\n  - id: a\n    extra: *b\n",
    "a byte order mark": "\ufeffexperts:\n  - id: a\n",
}


def parse(text: str) -> Any:
    """The data in a text."""
    return YAML(typ="safe", pure=True).load(text)


def is_kept(before: str, after: str) -> bool:
    """Whether all lines are kept, in their order."""
    lines = iter(after.splitlines())
    return all(any(line == there for there in lines) for line in before.splitlines())


@pytest.mark.parametrize("text", SHAPES.values(), ids=SHAPES)
def test_an_entry_is_appended_whatever_the_formatting(text: str) -> None:
    """A list in any formatting gets the entry; comments and all other lines stay to the byte."""
    edit = YamlEdit(text)
    edit.extend(["experts"], [ENTRY])
    after = edit.text()
    assert parse(after) == {**parse(text), "experts": [*(parse(text).get("experts") or ()), ENTRY]}
    assert all(f"#{line.partition('#')[2]}" in after for line in text.splitlines() if "#" in line)
    assert ("\r\n" in after) == ("\r\n" in text)
    if "- id" in text:
        assert is_kept(text, after)


@pytest.mark.parametrize(
    ("text", "after"),
    [
        (
            "experts:\n  - id: a\n    repo: 'x/y'  # c\n    # more\n    gated: no\n",
            "experts:\n  - id: a\n    repo: 'x/y'  # c\n    revision: abc\n    # more\n    gated: no\n",
        ),
        ("experts: [{id: a, repo: x, z: 1}]", "experts: [{id: a, repo: x, revision: abc, z: 1}]"),
        ("experts:\n- {repo: x, revision: 'main'} # m\n", "experts:\n- {repo: x, revision: abc} # m\n"),
        ("experts:\n- repo: x\n  revision:  # none\n", "experts:\n- repo: x\n  revision: abc  # none\n"),
        ("experts:\n- repo: x", "experts:\n- repo: x\n  revision: abc\n"),
        ("experts:\n- {}", "experts:\n- {revision: abc}"),
        ("experts:\n- repo: >-\n    x\n  z: 1\n", "experts:\n- repo: >-\n    x\n  revision: abc\n  z: 1\n"),
    ],
)
def test_a_key_is_set_in_place_or_behind_its_neighbour(text: str, after: str) -> None:
    """An existing key gets its value in place; a new one follows the key that is named."""
    edit = YamlEdit(text)
    edit.put(["experts", 0, "revision"], "abc", after="repo")
    assert edit.text() == after


def test_lists_inside_entries_grow_in_their_own_style() -> None:
    """A list in brackets grows inside them, a block list by lines, and several changes can be combined."""
    text = "experts:\n  - tags: {styles: [q]} # one\n  - tags:\n      styles:\n        - q  # two\n  - tags:\n"
    edit = YamlEdit(text)
    for index in (0, 1):
        edit.extend(["experts", index, "tags", "styles"], ["r", "s"])
        edit.put(["experts", index, "tags", "generalist"], value=True)
    edit.put(["experts", 2, "tags"], {"styles": ["t"]})
    assert edit.text() == (
        "experts:\n  - tags: {styles: [q, r, s], generalist: true} # one\n"
        "  - tags:\n      styles:\n        - q  # two\n        - r\n        - s\n      generalist: true\n"
        "  - tags: {styles: [t]}\n"
    )


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("experts: &e\n  - &a {id: a}\n  - *a\n", ["experts"]),
        ("a: &t [q]\nexperts: *t\n", ["experts"]),
        ("experts: [{id: a}]", ["experts", 3, "tags"]),
        ("experts: [{id: a}]", ["other", "tags"]),
    ],
)
def test_what_cannot_be_changed_in_place_is_refused(text: str, path: list[str | int]) -> None:
    """A list shared through an anchor, and a place that does not exist, are errors."""
    edit = YamlEdit(text)
    with pytest.raises(YamlEditError):
        (edit.extend(path, ["x"]), edit.text())


def test_comments_are_not_lost_by_replacing() -> None:
    """A list or mapping is not replaced, since it may contain comments."""
    edit = YamlEdit("a:\n  b: 1  # one\n")
    with pytest.raises(YamlEditError, match="comments"):
        edit.put(["a"], "x")


@pytest.mark.parametrize("name", ["model_zoo.yaml", "diffusiongpt/zoo/tiny/zoo.yaml"])
def test_real_zoo_files_stay_as_they_are(name: str) -> None:
    """Adding an entry, and a commit for each expert, to a shipped zoo changes no existing line."""
    text = (ROOT / name).read_text(encoding="utf-8")
    edit = YamlEdit(text)
    experts = parse(text)["experts"]
    for index in range(len(experts)):
        edit.put(["experts", index, "revision"], "0" * 40, after="repo")
    edit.extend(["experts"], [ENTRY])
    after = edit.text()
    assert is_kept(text, after)
    assert len(after.splitlines()) - len(text.splitlines()) >= len(experts) + len(dump_yaml(ENTRY).splitlines())


text = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]) | st.sampled_from("\n\t"), max_size=12)
keys = st.text("abc_", min_size=1, max_size=4)
scalars = st.one_of(st.none(), st.booleans(), st.integers(), text)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=6,
)
entries = st.dictionaries(keys, values, min_size=1, max_size=4)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(sorted(SHAPES)), entries)
def test_any_value_comes_back_as_it_went_in(shape: str, entry: dict[str, Any]) -> None:
    """Any values of an entry are read back unchanged."""
    edit = YamlEdit(SHAPES[shape])
    edit.extend(["experts"], [entry])
    assert parse(edit.text())["experts"][-1] == entry
