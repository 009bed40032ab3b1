"""Published human preferences: what tournaments of others say of our experts, and what that says of their kin."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib import resources
from math import log
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from diffusiongpt.zoo.expert import Expert


OVERALL = "overall"
"""Category of a leaderboard that holds all its prompts."""

REFERENCE_ELO = 900.0
"""Elo of a model about which nothing is published. A stated belief: on LMArena (2026-08-07, 75 models) one model
is below it; who is not listed is rarely better than who is."""

ROW, KIN, NOTHING = 0.4, 0.7, 1.0
"""Share of the usual doubt about an expert's level that is left by a row of its own on the main table, by a row
of an anchored table or by its kin, and by nothing. `KIN` is what leaving one expert out says: an error of 83 Elo
where levels spread by 120 (`benchmarks/published_priors.py`). `ROW` is a stated belief: a row is sure to 5 Elo, but
its voters and prompts are not yours."""

SKILL_WEIGHT = 2
"""Members of the family that the models of like skill count for; of 1, 2 and 3 the last two guess alike, and better."""

_SKILLS = ("poor", "fair", "good", "strong")
"""Degrees of rendering text that tell a model's generation; `none` does not, any toy is as good."""


def log_odds(elo: float) -> float:
    """Log-odds of being preferred to a model at `REFERENCE_ELO`: 400 Elo points are odds of ten to one."""
    return (elo - REFERENCE_ELO) / 400 * log(10)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One model on a leaderboard, on the scale of the main table.

    Attributes:
        name: What the leaderboard calls it.
        table: Name of the leaderboard.
        repo: Repository of the weights.
        family: Architecture of the model.
        writes: How well it renders text.
        elo: Elo by category, `overall` at least.
        anchored: Whether it comes from another table, moved onto the scale of the main one.
        is_service: Whether its weights are not available. Services are in a separate league, so what a skill or a
            category usually counts for is learnt from the other rows.
    """

    name: str
    table: str
    repo: str
    family: str
    writes: str
    elo: Mapping[str, float]
    anchored: bool
    is_service: bool = False


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What published votes say of an expert.

    Attributes:
        level: Log-odds of being preferred to an unknown model, over all prompts.
        shifts: What a category adds to the level.
        doubt: Share of the usual doubt that is left; see `ROW`.
        source: Where the figures come from, in words.
    """

    level: float = 0.0
    shifts: Mapping[str, float] = field(default_factory=dict)
    doubt: float = NOTHING
    source: str = "nothing published"


@dataclass(frozen=True)
class Leaderboards:
    """Rows of several tournaments on one scale.

    Attributes:
        rows: By repository; the first table that has a model wins.
        styles: Category that speaks about a style node.
        subjects: Category that speaks about a subject node, where the prompt names no style.
    """

    rows: Mapping[str, Row]
    styles: Mapping[str, str]
    subjects: Mapping[str, str]

    def standing(self, expert: Expert) -> Standing:
        """What is known of an expert: by its own row, else by its kin, else nothing."""
        row = self.rows.get(expert.repo)
        if row is None:
            return self._inherited(expert.architecture, expert.capabilities.text_rendering_en)
        source = f"{row.name} on {row.table}" + (", anchored" if row.anchored else "")
        return Standing(
            level=log_odds(row.elo[OVERALL]),
            shifts=_shifts(row),
            doubt=KIN if row.anchored else ROW,
            source=source,
        )

    def without(self, repo: str) -> Leaderboards:
        """The same without one model, for checking what its kin say of it."""
        rows = {name: row for name, row in self.rows.items() if name != repo}
        return Leaderboards(rows, self.styles, self.subjects)

    def _inherited(self, family: str | None, writes: str | None) -> Standing:
        """Mean of the family, to which the models that write as well count as `SKILL_WEIGHT` more members.

        How well a model renders text stands for its generation.
        """
        kin = [row for row in self.rows.values() if row.family == family]
        levels = [row.elo[OVERALL] for row in kin]
        if writes in _SKILLS:
            levels += [self._elo_by_skill[_SKILLS.index(writes)]] * SKILL_WEIGHT
        if not levels:
            return Standing()
        said = [f"{len(kin)} of its family"] if kin else []
        said += [f"models that write as well ({writes})"] if writes in _SKILLS else []
        return Standing(
            level=log_odds(float(np.mean(levels))),
            shifts=self._mean_shifts(kin),
            doubt=KIN,
            source=" and ".join(said),
        )

    def _mean_shifts(self, kin: Sequence[Row]) -> dict[str, float]:
        everybody = [_shifts(row) for row in self.rows.values() if not (row.anchored or row.is_service)]
        relatives = [_shifts(row) for row in kin if not row.anchored]
        usual = {name: float(np.mean([shift[name] for shift in everybody])) for name in (everybody or [{}])[0]}
        return {
            name: (sum(shift[name] for shift in relatives) + common) / (len(relatives) + 1)
            for name, common in usual.items()
        }

    @cached_property
    def _elo_by_skill(self) -> list[float]:
        """Elo on the straight line through all rows of open models, one for each of `_SKILLS`."""
        able = [row for row in self.rows.values() if row.writes in _SKILLS and not row.is_service]
        skills = [_SKILLS.index(row.writes) for row in able]
        if len(set(skills)) < 2:
            return [REFERENCE_ELO] * len(_SKILLS)
        line = np.polyfit(skills, [row.elo[OVERALL] for row in able], 1)
        return [float(np.polyval(line, skill)) for skill in range(len(_SKILLS))]


@cache
def published() -> Leaderboards:
    """The leaderboards that come with the package."""
    from ruamel.yaml import YAML

    text = resources.files("diffusiongpt.ranking").joinpath("published.yaml").read_text(encoding="utf-8")
    return read_leaderboards(YAML(typ="safe", pure=True).load(text))


def read_leaderboards(data: Mapping[str, Any]) -> Leaderboards:
    """Put tables on one scale: each is moved so that its anchor has the Elo that an earlier table gives it."""
    rows: dict[str, Row] = {}
    for table in data["tables"]:
        anchor = table.get("anchor")
        moved = _anchor_shift(table, rows[anchor]) if anchor else 0.0
        for entry in table["rows"]:
            elo = {category: value + moved for category, value in entry["elo"].items()}
            row = Row(
                name=entry["row"],
                table=table["name"],
                repo=entry["repo"],
                family=entry["family"],
                writes=entry["writes"],
                elo=elo,
                anchored=bool(anchor),
                is_service=bool(table.get("services")),
            )
            rows.setdefault(row.repo, row)
    return Leaderboards(rows, _by_node(data["styles"]), _by_node(data["subjects"]))


def _anchor_shift(table: Mapping[str, Any], anchor: Row) -> float:
    here = next(entry for entry in table["rows"] if entry["repo"] == anchor.repo)
    return float(anchor.elo[OVERALL] - here["elo"][OVERALL])


def _by_node(categories: Mapping[str, Sequence[str]]) -> dict[str, str]:
    return {node: category for category, nodes in categories.items() for node in nodes}


def _shifts(row: Row) -> dict[str, float]:
    level = log_odds(row.elo[OVERALL])
    return {category: log_odds(elo) - level for category, elo in row.elo.items() if category != OVERALL}
