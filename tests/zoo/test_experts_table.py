"""The table of docs/zoo.md: what each expert of the default zoo takes and allows. Run this file to write it."""

from __future__ import annotations

from pathlib import Path

from diffusiongpt.backends import is_hosted
from diffusiongpt.zoo import Expert, Zoo

DOCS = Path(__file__).parents[2] / "docs" / "zoo.md"
BEGIN, END = "<!-- experts -->\n", "<!-- end of experts -->\n"


def table() -> str:
    """The rows of the page, in the order of the zoo."""
    lines = ["| expert | components, GB | together | licence | commercial use |", "|---|---|---|---|---|"]
    for one in Zoo.load("default").values():
        size = "-" if one.size_bytes is None else f"{one.size_bytes / 1e9:.2f}"
        known = one.license
        terms = f"{known.id} | {known.commercial}" if known else "not stated | unknown"
        lines.append(f"| {one.id} | {components(one)} | {size} | {terms} |")
    return "\n".join(lines) + "\n"


def components(expert: Expert) -> str:
    """The parts of an expert with their sizes; of an adapter, what it sits on and what it adds."""
    if is_hosted(expert.backend):
        return f"at {expert.repo.partition('/')[0]}"
    if expert.kind != "checkpoint":
        adds = "a size that is not stated" if expert.size_gb is None else f"{expert.size_gb:.2f}"
        return f"{adds} on {expert.base or 'its base'}"
    return ", ".join(f"{name} {size:.2f}" for name, size in expert.sizes_gb.items()) or "not stated"


def test_the_page_lists_every_expert_as_the_zoo_has_it() -> None:
    """Sizes and licences on the page are those of the zoo; `python tests/zoo/test_experts_table.py` writes them."""
    page = DOCS.read_text(encoding="utf-8")
    assert page.partition(BEGIN)[2].partition(END)[0] == table()


def test_every_local_checkpoint_states_its_components_and_its_licence() -> None:
    """Without sizes there is no placement, and without a licence no commercial use."""
    local = [one for one in Zoo.load("default").values() if not is_hosted(one.backend)]
    assert [one.id for one in local if one.license is None] == []
    assert [one.id for one in local if one.kind == "checkpoint" and not one.components] == []
    assert [one.id for one in local if one.size_bytes is None] == []


if __name__ == "__main__":
    before, _, rest = DOCS.read_text(encoding="utf-8").partition(BEGIN)
    DOCS.write_text(before + BEGIN + table() + END + rest.partition(END)[2], encoding="utf-8")
