"""Kinds of prompts are read by meaning, from examples that are not those by which picks are measured."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from diffusiongpt.embedding import SentenceEmbedder
from diffusiongpt.ranking import KIND, published
from diffusiongpt.understanding import KindReader

ROOM = Path(__file__).parents[2]


@cache
def reader() -> KindReader:
    """Fitted once."""
    return KindReader(SentenceEmbedder())


@pytest.mark.parametrize(
    ("prompt", "kind"),
    [
        ("a headshot of a retired judge", "portraits"),
        ("一款健身应用的登录界面", "ui_ux"),
        ("retrato de una mujer mayor", "portraits"),
        ("a labelled diagram of a beehive", "diagrams"),
        ("十六种贝壳排成网格", "grids"),
        ("two nurses lifting a patient together", "people_interacting"),
        ("the towers of San Gimignano at noon", "real_places"),
        ("an ad campaign for a new sneaker", "commercial"),
    ],
)
def test_a_kind_is_read_by_meaning(prompt: str, kind: str) -> None:
    """A prompt of a kind that is like none of the examples in its words is read, in any language of the encoder."""
    found = reader().read(prompt)
    assert max(found, key=lambda one: found[one]) == kind
    assert sum(found.values()) <= 1 + 1e-6


def test_contents_without_a_column_are_of_no_kind() -> None:
    """Where no column counts such prompts, little is claimed; and nothing about a script that cannot be read."""
    assert sum(reader().read("a wolf howling in the snow").values()) < 0.5
    assert reader().read("პორტრეტი") == {}


def test_a_reader_may_be_fitted_without_a_kind() -> None:
    """What it was not shown it does not name, so that a check may hide a kind."""
    blind = KindReader(SentenceEmbedder(), without=frozenset({"portraits"}))
    assert "portraits" not in blind.read("portrait of a monk")


def test_the_kinds_are_those_of_the_prior() -> None:
    """Every column has examples, every example a column, and none of them is among the prompts of the benchmark."""
    offsets = {node for standing in published().experts.values() for node in standing.offsets}
    assert {f"{KIND}{kind}" for kind in KindReader.kinds()} == {node for node in offsets if node.startswith(KIND)}
    examples = YAML(typ="safe").load((ROOM / "diffusiongpt/understanding/kinds.yaml").read_text(encoding="utf-8"))
    measured = YAML(typ="safe").load((ROOM / "benchmarks/prior/prompts.yaml").read_text(encoding="utf-8"))
    shown = {str(text) for group in examples.values() for texts in group.values() for text in texts}
    assert not shown & {str(text) for texts in measured.values() for text in texts}
