"""The page of experts is true: each family has its row, and each test that a row names exists."""

from __future__ import annotations

import re
from pathlib import Path

from miniatures import CHANGING, DRAWING

from diffusiongpt.backends.diffusers import architectures

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "experts.md"
DRAWS = "tests/backends/test_miniatures.py::test_an_architecture_draws_over_http"
CHANGES = "tests/backends/test_tasks.py::test_a_family_does_what_its_row_says"
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)(?:\[([\w.-]+)\])?`")


def family_row(name: str) -> str:
    """The row of a family, as the miniatures say what is run here."""
    known = architectures()[name]
    tasks = sorted(known.tasks - {"text-to-image"})
    shown = [f"`{CHANGES}[{name}-{task}]`" for task in tasks]
    if name in CHANGING:
        first, rest = shown[0], shown[1:]
    elif name in DRAWING:
        first, rest = f"`{DRAWS}[{name}]`", shown
    else:
        first, rest = "*not run here*", []
    return f"| `{name}` | {known.title} | {first} | {', '.join(rest)} |"


def test_each_family_has_its_row() -> None:
    """In the order of the table; a family without a miniature is marked as not run here, and no other is."""
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    assert rows[: len(architectures())] == [family_row(name) for name in architectures()]


def test_the_tests_that_are_named_exist() -> None:
    """Their files define them, and a parameter in brackets is one that their family and task give."""
    named = NAMED.findall(PAGE.read_text(encoding="utf-8"))
    assert len(named) > 40
    ids = {f"{name}-{task}" for name, known in architectures().items() for task in known.tasks}
    for file, name, parameter in named:
        assert re.search(rf"^def {name}\(", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE), (file, name)
        assert not parameter or parameter in ids | set(DRAWING), parameter


def test_every_row_is_shown_by_something() -> None:
    """A row of any table on the page names a test, or says that it is not run here."""
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    for row in rows:
        is_head = set(row) <= set("|- ") or "shown by" in row or "from pictures" in row
        assert is_head or NAMED.search(row) or "*not run here*" in row, row
