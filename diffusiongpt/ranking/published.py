"""Prior scores of experts from published leaderboards and measurements: one fit, kept as data, and how to apply it.

`python benchmarks/first_pick.py --data DIR --write` makes `prior.json`: one hierarchical Gaussian model of all tables,
with scale, offset, and noise for each source (`benchmarks/prior/fit.py`). Levels are Elo points on the scale of the
Artificial Analysis arena.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from math import log
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffusiongpt.zoo import Expert

SEVERAL_PICTURES = "several_pictures"
"""Evidence that an edit takes more than one picture, which an arena of edits counts apart."""

REWRITTEN = "rewritten"
"""Evidence that an LLM has written out what follows from a prompt only by thinking."""

COUNTS = 0.6
"""Share of right counts of two to four objects (GenEval) from which an expert counts as able to count. Stated: it parts
the models of before 2024 (.34 to .49) from those of later families (.64 to .91), with Janus-Pro (.59) between."""

OVERALL = "overall"
"""Column of a table that holds all its prompts."""

REFERENCE_ELO = 900.0
"""Elo that scores zero; between Stable Diffusion XL and Stable Diffusion 3.5 Medium. It cancels in every comparison."""

ELO_PER_LOG_ODDS = 400 / log(10)
"""400 Elo points are odds of ten to one."""

SMALLEST_GB, LARGEST_GB = 0.5, 64.0
"""Sizes between which the line through levels and sizes is trusted."""


def log_odds(elo: float) -> float:
    """Log-odds of being preferred to a model at `REFERENCE_ELO`."""
    return (elo - REFERENCE_ELO) / ELO_PER_LOG_ODDS


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What published evidence says of an expert.

    Attributes:
        level: Elo over all prompts.
        doubt: Standard deviation of the level, in Elo points.
        offsets: Elo points that a taxonomy node adds to the level.
        languages: Elo points that a prompt language costs, by BCP 47 tag; negative.
        figures: What the arenas print of the expert itself: Elo by source and column.
        measured: Whether some table has the expert itself.
        source: Where this is from, in words.
    """

    level: float
    doubt: float
    offsets: Mapping[str, float] = field(default_factory=dict)
    languages: Mapping[str, float] = field(default_factory=dict)
    figures: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    measured: bool = False
    source: str = "nothing published"


@dataclass(frozen=True)
class Edits:
    """What is published of changing pictures by instruction; levels are those of an arena of edits alone.

    Attributes:
        unknown: Level and doubt of an editor of which nothing is known.
        experts: By repository.
        families: By architecture, for an editor of that family that no arena has.
    """

    unknown: Standing = Standing(level=REFERENCE_ELO, doubt=200.0)
    experts: Mapping[str, Standing] = field(default_factory=dict)
    families: Mapping[str, Standing] = field(default_factory=dict)

    def standing(self, expert: Expert) -> Standing:
        """What is known of an editor: by its own figures, else by its base, or its family."""
        if expert.repo in self.experts:
            return self.experts[expert.repo]
        if expert.base and expert.base in self.experts:
            return _kin(self.experts[expert.base], f"its base, {expert.base}")
        return self.families.get(expert.architecture or "", self.unknown)


@dataclass(frozen=True)
class Figures:
    """One published figure of models.

    Attributes:
        experts: By repository.
        families: By architecture, for an expert of that family that no table has.
        usual: For all others; `None` if nothing is said of those.
    """

    experts: Mapping[str, float] = field(default_factory=dict)
    families: Mapping[str, float] = field(default_factory=dict)
    usual: float | None = None

    def of(self, expert: Expert) -> float | None:
        """The figure of an expert, of its base, or of its family."""
        own = self.experts.get(expert.repo, self.experts.get(expert.base or ""))
        return self.families.get(expert.architecture or "", self.usual) if own is None else own


@dataclass(frozen=True)
class Published:
    """The fitted prior.

    Attributes:
        experts: By repository, for every model of a table whose weights or service has one.
        families: By architecture, for a model of that family that no table has.
        sizes: Intercept, slope by the natural logarithm of GB, and standard deviation, for a model without kin.
        unknown: Level and standard deviation of a model of which nothing is known.
        styles: Nodes that are styles.
        needs: Nodes that are needs; the others are subjects.
        columns: For a taxonomy node, the column of the main arena that is nearest to it.
        sources: Name, date, licence, credit, and address of every table.
        edits: The same for changing pictures.
        counting: Share of right counts of two to four objects.
        rewriting: Elo points that a rewritten prompt adds where it takes thought.
    """

    experts: Mapping[str, Standing]
    families: Mapping[str, Standing]
    sizes: tuple[float, float, float]
    unknown: Standing
    styles: frozenset[str]
    needs: frozenset[str]
    columns: Mapping[str, str]
    sources: tuple[Mapping[str, Any], ...]
    edits: Edits = field(default_factory=Edits)
    counting: Figures = field(default_factory=Figures)
    rewriting: Figures = field(default_factory=Figures)

    def counts(self, expert: Expert) -> bool:
        """Whether an expert is known to draw the number of objects that is asked for."""
        return (self.counting.of(expert) or 0.0) >= COUNTS

    def standing(self, expert: Expert) -> Standing:
        """What is known of an expert: by its own figures, else by its base, its family, or its size."""
        if expert.repo in self.experts:
            return self.experts[expert.repo]
        if expert.base and expert.base in self.experts:
            return _kin(self.experts[expert.base], f"its base, {expert.base}")
        if expert.architecture is not None and expert.architecture in self.families:
            return self.families[expert.architecture]
        if expert.size_gb is None or expert.is_guest:
            return self.unknown
        start, slope, doubt = self.sizes
        gigabytes = min(max(expert.size_gb, SMALLEST_GB), LARGEST_GB)
        return Standing(level=start + slope * log(gigabytes), doubt=doubt, source="models of its size")


def _kin(base: Standing, source: str) -> Standing:
    """What an adapter has of its base: the same, with more doubt, and no figures of its own."""
    doubt = (base.doubt**2 + 60.0**2) ** 0.5
    return Standing(level=base.level, doubt=doubt, offsets=base.offsets, languages=base.languages, source=source)


@cache
def published() -> Published:
    """The prior that comes with the package."""
    text = resources.files("diffusiongpt.ranking").joinpath("prior.json").read_text(encoding="utf-8")
    return read_published(json.loads(text))


def read_published(data: Mapping[str, Any]) -> Published:
    """The prior that a parsed `prior.json` holds."""
    return Published(
        experts=_standings(data["experts"]),
        families=_standings(data["families"]),
        sizes=tuple(data["sizes"]),
        unknown=Standing(**data["unknown"]),
        styles=frozenset(data["styles"]),
        needs=frozenset(data["needs"]),
        columns=data["columns"],
        sources=tuple(data["sources"]),
        edits=_edits(data["edits"]) if "edits" in data else Edits(),
        counting=Figures(**data.get("counting", {})),
        rewriting=Figures(**data.get("rewriting", {})),
    )


def _edits(data: Mapping[str, Any]) -> Edits:
    return Edits(Standing(**data["unknown"]), _standings(data["experts"]), _standings(data["families"]))


def _standings(data: Mapping[str, Any]) -> dict[str, Standing]:
    return {name: Standing(**one) for name, one in data.items()}
