"""A zoo file is read completely, or refused with an error that names the file, the line, and what to change."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fixtures_routing import tiny_zoo
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from diffusiongpt.errors import UnknownExpertError, ZooError
from diffusiongpt.zoo import ROOT, Expert, Zoo, shipped_zoo

if TYPE_CHECKING:
    from collections.abc import Callable

GOOD = """schema_version: 1
experts:
  - id: fox
    repo: somebody/fox
    tags: {styles: [watercolor]}
"""
CYCLE = "taxonomy:\n  - {id: one, kind: style, parents: [two]}\n  - {id: two, kind: style, parents: [one]}\n"


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str | bytes], Path]:
    """Write a zoo file and return its path."""

    def write(text: str | bytes, name: str = "zoo.yaml") -> Path:
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def test_the_shipped_zoos_are_whole() -> None:
    """Both zoos of the package load, every style of the tree is searched, and local folders exist."""
    for name in ("default", "tiny"):
        zoo = Zoo.load(name)
        assert zoo, name
        assert any(expert.is_generalist for expert in zoo.values()), name
        for expert in zoo.values():
            assert expert.license is not None, expert.id
            assert expert.sources, expert.id
            assert expert.folder is None or expert.folder.is_dir(), expert.id
    assert len(Zoo.load("default")) >= 12


def test_no_name_means_the_default_zoo() -> None:
    """Without a source the zoo that ships with the package is read."""
    assert set(Zoo.load()) == set(Zoo.load("default"))
    assert Zoo.load().sources == ("default",)
    assert shipped_zoo("mine") is None


def test_a_good_file_is_read(write: Callable[..., Path]) -> None:
    """The expert has the facts of the file, and what the file leaves out stays unknown."""
    fox = Zoo.load(write(GOOD))["fox"]
    assert (fox.repo, fox.tags.styles, fox.backend) == ("somebody/fox", ("watercolor",), "diffusers")
    assert fox.license is None
    assert fox.size_bytes is None
    assert fox.folder is None


def test_later_layers_replace_earlier_ones(write: Callable[..., Path]) -> None:
    """Zoo files are layers: an expert with the same id is replaced in its place, others are kept."""
    mine = write("experts:\n  - {id: tiny-pixel, repo: me/pixel}\n  - {id: new, repo: me/new}\n")
    zoo = Zoo.load("tiny", mine)
    assert zoo["tiny-pixel"].repo == "me/pixel"
    assert list(zoo) == [*tiny_zoo(), "new"]
    assert zoo.sources == ("tiny", str(mine))
    assert set(Zoo.load(mine)) == {"tiny-pixel", "new"}


def test_a_version_follows_what_is_said(write: Callable[..., Path]) -> None:
    """A comment changes nothing; a tag, a setting, a node and the order of the experts do; a copy has the same."""
    owl = "  - {id: owl, repo: me/owl}\n"
    texts = [
        GOOD,
        GOOD.replace("watercolor", "anime"),
        GOOD + "    settings: {num_inference_steps: 3}\n",
        "taxonomy:\n  - {id: etching, kind: style, parents: [root]}\n" + GOOD,
        GOOD + owl,
        GOOD.replace("experts:\n", "experts:\n" + owl),
    ]
    versions = [Zoo.load(write(text)).version for text in texts]
    assert len(set(versions)) == len(texts)
    again = Zoo.load(write("# a comment\n" + GOOD))
    copy = pickle.loads(pickle.dumps(again))  # noqa: S301  # made here
    assert again.version == copy.version == versions[0]


def test_a_file_may_add_and_replace_nodes(write: Callable[..., Path]) -> None:
    """`taxonomy:` adds a node, or replaces the node of that id."""
    zoo = Zoo.load(write("taxonomy:\n  - {id: ascii_art, kind: style, aliases: [ascii]}\n" + GOOD.split("\n", 1)[1]))
    assert zoo.taxonomy.nodes["ascii_art"].aliases == ("ascii",)
    assert "watercolor" in zoo.taxonomy.nodes


def test_a_local_repo_lies_beside_its_zoo_file(write: Callable[..., Path], tmp_path: Path) -> None:
    """`./name` is a folder next to the file, whatever the working directory is."""
    assert Zoo.load(write("experts: [{id: a, repo: ./weights}]"))["a"].folder == tmp_path / "weights"


@pytest.mark.parametrize(
    ("text", "line", "message", "hint"),
    [
        (GOOD + "    licence: {id: MIT}\n", 6, "unknown key 'experts.0.licence'", "Did you mean 'license'?"),
        (GOOD + "    settings: {widht: 512}\n", 6, "experts.0.settings.widht", "Did you mean 'width'?"),
        (GOOD.replace("experts:", "expert:"), 2, "unknown key 'expert'", "Did you mean 'experts'?"),
        (GOOD + "    zzzz: 1\n", 6, "unknown key", "Known keys here: id, backend, repo"),
        (GOOD + "    size_gb: big\n", 6, "valid number", "'big'"),
        (GOOD + "    size_gb: -1\n", 6, "greater than 0", "-1"),
        (GOOD + "    components: {unet: 0}\n", 6, "greater than 0", "0"),
        (GOOD + "    components: {unet: big}\n", 6, "valid number", "'big'"),
        (GOOD + "    components: {Unet 1: 2}\n", 6, "match pattern", "Unet 1"),
        (GOOD + "    size_gb: 6.9\n    components: {unet: 5.1}\n", 3, "a component is missing", "fox"),
        (GOOD + "  - {id: fox, repo: b/c}\n", 6, "has the id 'fox' twice", "unique"),
        (GOOD + "    repo: b/c\n", 6, "duplicate key", "duplicate keys"),
        (GOOD + "\t- id: b\n", 6, "cannot start any token", "indentation"),
        (GOOD.replace("somebody/fox", "nowhere"), 3, "neither owner/name nor a folder", "nowhere"),
        (GOOD.replace("id: fox", "id: Fox Two"), 3, "match pattern", "Fox Two"),
        (GOOD + "    kind: adapter\n", 3, "an adapter needs 'base'", "fox"),
        (GOOD.replace("schema_version: 1", "schema_version: 2"), 1, "less than or equal to 1", "2"),
        ("experts: hello\n", 1, "experts", "'hello'"),
        ("experts: [fox]\n", 1, "experts.0", "'fox'"),
        (GOOD + "---\n" + GOOD, 6, "another document", "indentation"),
        (GOOD + "    license: *missing\n", 6, "undefined alias", "quotes"),
        (GOOD + "    description: !!python/object/apply:os.system [ls]\n", 6, "not valid YAML", "quotes"),
        ("taxonomy:\n  - {id: a, kind: style}\n  - {id: a, kind: style}\n", 3, "has the id 'a' twice", "unique"),
    ],
)
def test_a_mistake_is_reported_with_its_line(
    write: Callable[..., Path], text: str, line: int, message: str, hint: str
) -> None:
    """The error for an invalid zoo file names the file, the line, the key, and what would be valid."""
    path = write(text)
    with pytest.raises(ZooError) as caught:
        Zoo.load(path)
    assert f"{path}:{line}:" in str(caught.value)
    assert message in str(caught.value)
    assert hint in caught.value.hint


def test_all_mistakes_are_reported(write: Callable[..., Path]) -> None:
    """The error carries each mistake with its line and its hint: keys, values, ids, and tags once the rest is right."""
    text = GOOD + "    licence: MIT\n    size_gb: big\n  - {id: fox, repo: b/c, settings: {widht: 1}}\n"
    path = write(text)
    with pytest.raises(ZooError) as caught:
        Zoo.load(path)
    told = dict(caught.value.mistakes)
    assert sorted(message.partition(": ")[0].rpartition(":")[2] for message in told) == ["6", "7", "8", "8"]
    assert told[f"{path}:6: unknown key 'experts.0.licence'"] == "Did you mean 'license'?"
    assert told[f"{path}:8: unknown key 'experts.1.settings.widht'"] == "Did you mean 'width'?"
    assert any("has the id 'fox' twice" in message for message in told)
    with pytest.raises(ZooError) as caught:
        Zoo.load(write(GOOD.replace("[watercolor]", "[watercolour, ink_wahs]")))
    assert [hint for _, hint in caught.value.mistakes] == ["Did you mean 'watercolor'?", "Did you mean 'ink_wash'?"]


def test_a_misspelt_key_is_one_mistake(write: Callable[..., Path]) -> None:
    """The key that it should have been is not reported as missing as well; one that is missing otherwise is."""
    with pytest.raises(ZooError) as caught:
        Zoo.load(write("experts:\n  - {id: fox, repoo: a/b}\n"))
    assert (str(caught.value).partition(": ")[2], caught.value.hint) == (
        "unknown key 'experts.0.repoo'", "Did you mean 'repo'?"
    )  # fmt: skip
    with pytest.raises(ZooError) as caught:
        Zoo.load(write("experts:\n  - {id: fox, stylez: [x]}\n"))
    assert len(caught.value.mistakes) == 2


def test_further_mistakes_are_counted(write: Callable[..., Path]) -> None:
    """The message reports the first mistake and the number of further ones."""
    with pytest.raises(ZooError, match=r"\(and 1 more\)"):
        Zoo.load(write(GOOD + "    licence: MIT\n    size_gb: big\n"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (CYCLE + GOOD.split("\n", 1)[1], "form a cycle"),
        ("taxonomy:\n  - {id: a, kind: style, parents: [missing]}\n", "unknown parent 'missing'"),
        (f"taxonomy:\n  - {{id: {ROOT}, kind: style}}\n", "must not be called"),
        (GOOD.replace("watercolor", "watercolors"), "not a style of the taxonomy"),
        (GOOD.replace("styles: [watercolor]", "subjects: [watercolor]"), "not a subject of the taxonomy"),
        ("", "must be a mapping"),
        ("- id: fox\n", "must be a mapping"),
        (GOOD + "    description: 2024-13-45\n", "not valid YAML"),
        ("experts: " + "[" * 1200 + "]" * 1200, "not valid YAML"),
        (b"experts: \x00", "not valid YAML"),
        (GOOD.encode("utf-16"), "could not be read"),
        (b"experts: [{id: a, repo: o/a, description: caf\xe9}]", "could not be read"),
        (bytes(range(256)), "could not be read"),
    ],
)
def test_a_broken_file_is_a_zoo_error(write: Callable[..., Path], text: str | bytes, message: str) -> None:
    """A cycle, an unknown tag, or a file that is not YAML is a `ZooError` with the file's name and a hint."""
    path = write(text)
    with pytest.raises(ZooError, match=message) as caught:
        Zoo.load(path)
    assert str(path) in str(caught.value)
    assert caught.value.hint


def test_a_near_tag_is_suggested(write: Callable[..., Path]) -> None:
    """The hint for a mistyped tag names the nearest node."""
    with pytest.raises(ZooError) as caught:
        Zoo.load(write(GOOD.replace("watercolor", "watercolour")))
    assert caught.value.hint == "Did you mean 'watercolor'?"


@pytest.mark.parametrize(("source", "meant"), [("defalt", "default"), ("tyny", "tiny"), ("mine.yaml", "")])
def test_a_misspelt_zoo_of_the_package_is_answered_with_its_name(source: str, meant: str) -> None:
    """Whoever meant a file of their own is not offered one of ours."""
    with pytest.raises(ZooError) as caught:
        Zoo.load(source)
    assert caught.value.hint.startswith(f"Did you mean '{meant}'? Use a path" if meant else "Use a path")


@pytest.mark.parametrize("source", ["defalt", "no/such.yaml", "~nosuchuser/zoo.yaml", "a\0b", "x" * 5000])
def test_a_missing_file_is_a_zoo_error(source: str) -> None:
    """A source that is not the name of a file is a `ZooError` that says so."""
    with pytest.raises(ZooError, match=r"does not exist|could not be read"):
        Zoo.load(source)


@pytest.mark.parametrize(
    ("repo", "local"),
    [
        ("./weights", True),
        ("~/weights", True),
        ("/srv/weights", True),
        (r"C:\models\x", True),
        ("D:/models/x", True),
        (r"\\server\share\x", True),
        ("somebody/fox", False),
    ],
)
def test_folders_of_every_system_are_folders(repo: str, local: bool) -> None:
    """A drive or a network share of Windows is not a hub repository, on any system."""
    expert = Expert(id="a", repo=repo)
    assert expert.is_local is local
    assert (expert.folder is not None) is local


def test_a_folder_is_not_a_zoo_file(tmp_path: Path) -> None:
    """A folder where a file should be is a `ZooError`."""
    with pytest.raises(ZooError, match="could not be read"):
        Zoo.load(tmp_path)


def test_an_unknown_home_does_not_crash(write: Callable[..., Path]) -> None:
    """`~name` of a user that does not exist is a folder that does not exist."""
    folder = Zoo.load(write("experts: [{id: a, repo: ~nosuchuser/a}]"))["a"].folder
    assert folder is not None
    assert not folder.exists()


def test_an_alias_without_a_word_names_nothing(write: Callable[..., Path]) -> None:
    """An empty alias, or one of punctuation alone, is never found in a prompt."""
    from diffusiongpt.embedding import LexicalEmbedder
    from diffusiongpt.understanding import Lexicon

    zoo = Zoo.load(write("taxonomy:\n  - {id: odd, kind: style, aliases: ['', '!!']}\n"))
    lexicon = Lexicon(zoo.taxonomy.nodes.values(), LexicalEmbedder())
    assert lexicon.mentions("!! a fox !!")[0].node == "animal"


def test_an_unknown_expert_names_the_near_ones() -> None:
    """An unknown id is an `UnknownExpertError` whose hint names the nearest ids."""
    with pytest.raises(UnknownExpertError) as caught:
        tiny_zoo()["tiny-pixle"]
    assert "tiny-pixel" in caught.value.hint
    for unlike in ("qqqqqqqqqqqq", "nope"):
        with pytest.raises(UnknownExpertError) as caught:
            tiny_zoo()[unlike]
        assert "zoo list" in caught.value.hint


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    at=st.integers(0, len(GOOD)), drop=st.integers(0, 12), put=st.text("\t\n :-[]{}'\"#&*!|>%@`?~0aé\x00", max_size=6)
)
def test_any_slip_of_the_keyboard_is_read_or_refused(tmp_path: Path, at: int, drop: int, put: str) -> None:
    """Whatever is deleted from a zoo file or typed into it, it loads or is a `ZooError`."""
    path = tmp_path / "slip.yaml"
    path.write_text(GOOD[:at] + put + GOOD[at + drop :], encoding="utf-8")
    try:
        Zoo.load(path)
    except ZooError as error:
        message = str(error)
    else:
        message = str(path)
    assert str(path) in message


def test_the_published_schema_is_current() -> None:
    """Editors complete zoo files from `docs/zoo.schema.json`; `make schema` writes it."""
    from diffusiongpt.zoo import ZooFile

    published = (Path(__file__).parents[2] / "docs" / "zoo.schema.json").read_text(encoding="utf-8")
    assert json.loads(published) == ZooFile.model_json_schema()


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])  # noqa: S301  # made here
def test_a_copy_of_an_expert_has_its_parts(again: Callable[[Expert], Expert]) -> None:
    """What a zoo knows of an adapter beside its entry goes with it, and what no expert has is an `AttributeError`."""
    adapter = next(one for one in Zoo.load("default").values() if one.is_guest)
    twin = again(adapter)
    assert twin == adapter
    assert twin.base_expert == adapter.base_expert is not None
    assert twin.parts == adapter.parts
    with pytest.raises(AttributeError, match="nothing_like_this"):
        _ = twin.nothing_like_this  # type: ignore[attr-defined]
    assert not hasattr(Expert.__new__(Expert), "_folder")
