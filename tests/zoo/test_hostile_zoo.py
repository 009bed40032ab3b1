"""Zoo files of strangers are bounded before anything is made of them."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from diffusiongpt.errors import ZooError
from diffusiongpt.zoo import Zoo
from diffusiongpt.zoo.yaml_file import MAX_ENTRIES, YamlError, line_of, read_yaml

LAUGHS = "a: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"b{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10)
)
ENTRY = "experts:\n  - id: fox\n    repo: somebody/fox\n"


@pytest.fixture
def refused(tmp_path: Path) -> Callable[[str], str]:
    """Loads a zoo file that is to be refused within seconds, and returns the message."""

    def load(text: str) -> str:
        path = tmp_path / "zoo.yaml"
        path.write_text(text, encoding="utf-8")
        start = time.monotonic()
        with pytest.raises(ZooError) as caught:
            Zoo.load(path)
        assert time.monotonic() - start < 5
        assert caught.value.hint
        assert len(str(caught.value)) < 600
        return str(caught.value)

    return load


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LAUGHS, "values in one place"),
        ("a: &a [1, *a]", "contains itself"),
        ("a: &a {b: *a}", "contains itself"),
        ("a: *b", "undefined alias"),
        (ENTRY + f"    size_gb: {'9' * 10_000}", "a number of 10000 characters"),
        (ENTRY + f"    size_gb: 0x{'f' * 100_000}", "a number of"),
        (ENTRY + "    size_gb: .inf", "finite"),
        (ENTRY + "    size_gb: 1e999", "finite"),
        (ENTRY + "    size_gb: .nan", "finite|greater"),
        (ENTRY + f"    size_gb: {'9' * 40}", "less than"),
        (ENTRY + "    components: {vae: {repo: a/b, file: ../x.safetensors}}", "not the path of a file"),
        (ENTRY + "    components: {vae: {repo: a/b, file: /etc/x.safetensors}}", "not the path of a file"),
        (ENTRY + "    components: {vae: {repo: a/b, file: 'a\\b.safetensors'}}", "not the path of a file"),
        (ENTRY + "    components: {vae: {repo: a/b, file: x.ckpt}}", "can run code"),
        (ENTRY + "    components: {vae: {repo: a/b, subfolder: a/../..}}", "not the path of a folder"),
        (ENTRY + "    components: {vae: {repo: a/b, subfolder: /etc}}", "not the path of a folder"),
        (ENTRY + "    components: {vae: {repo: a/b/c}}", "neither owner/name nor a folder"),
        (ENTRY + "    components: {vae: {repo: 'https://evil.example/a'}}", "neither owner/name nor a folder"),
        (ENTRY + "    components: {vae: {repo: a/b, size_gb: .nan}}", "finite|greater"),
        (ENTRY + "    components: {vae: {repo: a/b, subfolder: x, file: y.safetensors}}", "whole folder"),
        (ENTRY + "    components: {vae: {repo: ./y.safetensors, file: y.safetensors}}", "names one file already"),
        (ENTRY + "    components: {vae: {rep: a/b}}", "unknown key 'experts.0.components.vae.rep'"),
        (ENTRY + "    components: {vae: a/b}", "written as {repo: a/b}"),
        (ENTRY + "    components: {vae: ./fixed}", "written as {repo: ./fixed}"),
        (ENTRY + "    components: {vae: large}", "valid number"),
        (ENTRY + "    settings: {width: 1e99}", "integer"),
        (ENTRY + "    settings: {num_inference_steps: 1000000000}", "less than"),
        (ENTRY + "    description: !!python/object:os.system x", "tag"),
        (ENTRY + "    description: !!int ''", "tag"),
        (ENTRY + "    description: !!binary '=='", "tag"),
        (ENTRY + "    ? [a, b]\n    : 1", "key must be text"),
        (ENTRY + f"    negative_prompt: {'ugly, ' * 2_000_000}x", "at most"),
        ("experts: [{id: " + "a" * 1_000_000 + ", repo: o/a}]", "at most 80"),
        (ENTRY + f"    trigger_words: [{'a, ' * 60}a]", "at most 50"),
        (ENTRY + f"    tags: {{styles: [{'a, ' * 600}a]}}", "at most 500"),
        (ENTRY + f"    sources: [{'a, ' * 6000}a]", "values in one place"),
        ("experts: [" + "a, " * (MAX_ENTRIES + 2) + "]", f"more than {MAX_ENTRIES} entries"),
        ("experts: " + "[" * 100_000, "levels of nesting"),
        ("x: {" * 100_000, "levels of nesting"),
        ("#" * 17_000_000, "larger than 16 MB"),
    ],
)
def test_what_would_take_minutes_is_refused(refused: Callable[[str], str], text: str, message: str) -> None:
    """Aliases, cycles, digits, tags, sizes, lengths and depths: a `ZooError` with a short message, at once."""
    assert re.search(message, refused(text))


def _nodes(count: int, rest: str, name: str = "n") -> str:
    entries = (f"  - {{id: {name}{i}, {rest.replace('BEFORE', f'{name}{i - 1}')}}}\n" for i in range(1, count + 1))
    return "".join(entries)


WORDS = ", ".join(f"word{number}" for number in range(100))
TAGGED = "".join(f"  - {{id: e{i}, repo: o/a, tags: {{styles: [{'animee, ' * 40}a]}}}}\n" for i in range(1_000))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("taxonomy:\n" + _nodes(4_000, "kind: subject, parents: [BEFORE]"), "nodes, and at most 2,000"),
        ("taxonomy:\n" + _nodes(1_500, "kind: subject, parents: [BEFORE]"), "unknown parent 'n0'"),
        ("taxonomy:\n" + _nodes(900, "kind: subject") + _nodes(900, "kind: style", "s"), "links to their parents"),
        ("taxonomy:\n" + _nodes(300, f"kind: style, aliases: [{WORDS}]"), "words, and at most 20,000"),
        ("taxonomy:\n" + _nodes(300, f"kind: style, aliases: [{', '.join(['x' * 190] * 15)}]"), "500,000 characters"),
        ("experts:\n" + TAGGED, "'animee' is not a style of the taxonomy .and 99 more"),
    ],
    ids=["chain", "parents", "links", "words", "characters", "tags"],
)  # fmt: skip
def test_a_taxonomy_that_no_prompt_can_be_compared_with_is_refused(
    refused: Callable[[str], str], text: str, message: str
) -> None:
    """Nodes, links, words and mistakes have limits, and none of them takes longer than reading the file."""
    assert re.search(message, refused(text))


@pytest.mark.parametrize(
    "name",
    ["output_type", "return_dict", "callback", "callback_on_step_end", "callback_on_step_end_tensor_inputs",
     "generator", "prompt", "image", "width", "num_images_per_prompt"],
)  # fmt: skip
def test_extra_leaves_our_side_alone(refused: Callable[[str], str], name: str) -> None:
    """A zoo file sets no argument by which the result is read, or which a request decides."""
    assert name in refused(ENTRY + f"    settings: {{extra: {{{name}: latent}}}}")


def test_devices_and_pipes_are_not_opened(tmp_path: Path) -> None:
    """Reading them might never end."""
    os.mkfifo(tmp_path / "pipe.yaml")
    for path in (tmp_path / "pipe.yaml", Path("/dev/zero"), Path("/dev/stdin")):
        if path.exists() and not path.is_file():
            with pytest.raises(ZooError, match="not a regular file"):
                Zoo.load(path)


def test_aliases_and_merges_still_work(tmp_path: Path) -> None:
    """What people write by hand means what it meant."""
    path = tmp_path / "zoo.yaml"
    path.write_text(
        "experts:\n"
        "  - &one {id: one, repo: o/1, settings: &s {width: 512, extra: {eta: 1}}, license: {id: m, commercial: no}}\n"
        "  - {<<: *one, id: two, repo: o/two}\n"
        "  - {id: three, repo: o/three, settings: *s, description: 'no', languages: [en, no]}\n",
        encoding="utf-8",
    )
    zoo = Zoo.load(path)
    assert zoo["two"].settings == zoo["one"].settings == zoo["three"].settings
    assert zoo["two"].license is not None
    assert zoo["two"].license.commercial == "no"
    assert zoo["three"].languages == ("en", "no")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1), ("-1_000", -1000), ("+7", 7), ("0o17", 15), ("0xff", 255), ("1.5", 1.5), ("1e3", 1000.0), (".5", 0.5),
        ("true", True), ("yes", "yes"), ("no", "no"), ("on", "on"), ("~", None), ("'1'", "1"), ("012", 12),
        ("1:30", "1:30"), ("1.2.3", "1.2.3"), ("!!str 1", "1"), ("-", None), ("+x", "+x"), ("0x", "0x"),
    ],
)  # fmt: skip
def test_plain_words_are_those_of_yaml_12(text: str, value: object) -> None:
    """Numbers, booleans and null of the core schema; `no` is Norwegian, and a licence's answer."""
    read = read_yaml(f"a: {text}\n")["a"] if text != "-" else read_yaml("a:\n")["a"]
    assert read == value
    assert type(read) is type(value)


def test_lines_are_those_of_keys() -> None:
    """The line of a key, of an entry, or of what encloses a missing one."""
    text = "a: 1\nexperts:\n  - id: x\n    tags:\n      styles: [p, q]\n  - {id: y,\n     repo: z}\nb: 2\n"
    styles = ("experts", 0, "tags", "styles")
    at = [("a",), ("experts",), ("experts", 0), styles, (*styles, 1), ("experts", 1, "repo"),
          ("experts", 1, "nosuch"), ("b",), ("nosuch",), ("experts", 0, "nosuch", "id")]  # fmt: skip
    assert [line_of(text, place) for place in at] == [1, 2, 3, 5, 5, 7, 6, 8, 1, 3]


def test_two_documents_are_refused() -> None:
    """A zoo file is one document."""
    with pytest.raises(YamlError, match="another document"):
        read_yaml("a: 1\n---\nb: 2\n")
