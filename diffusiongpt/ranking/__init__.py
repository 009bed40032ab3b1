"""From votes and published evidence to a score for each expert."""

from __future__ import annotations

from diffusiongpt.ranking.live import LiveTable
from diffusiongpt.ranking.personal import LATEST, LEVEL, MOST_VOTERS, PersonalTable, PersonalTables
from diffusiongpt.ranking.priors import (
    FURTHER_STYLE_POINTS,
    GENERALIST_POINTS,
    HARD_STYLE_POINTS,
    KIND,
    LANGUAGE,
    MEASURED_STYLE_POINTS,
    STRENGTH_POINTS,
    STYLE_POINTS,
    SUBJECT_POINTS,
    SUBJECT_SHARE,
    PublishedPriors,
    TagPriors,
)
from diffusiongpt.ranking.published import (
    COUNTS,
    ELO_PER_LOG_ODDS,
    REWRITTEN,
    SEVERAL_PICTURES,
    Published,
    log_odds,
    published,
    read_published,
)
from diffusiongpt.ranking.table import RankingTable

__all__ = [
    "COUNTS",
    "ELO_PER_LOG_ODDS",
    "FURTHER_STYLE_POINTS",
    "GENERALIST_POINTS",
    "HARD_STYLE_POINTS",
    "KIND",
    "LANGUAGE",
    "LATEST",
    "LEVEL",
    "MEASURED_STYLE_POINTS",
    "MOST_VOTERS",
    "REWRITTEN",
    "SEVERAL_PICTURES",
    "STRENGTH_POINTS",
    "STYLE_POINTS",
    "SUBJECT_POINTS",
    "SUBJECT_SHARE",
    "LiveTable",
    "PersonalTable",
    "PersonalTables",
    "Published",
    "PublishedPriors",
    "RankingTable",
    "TagPriors",
    "log_odds",
    "published",
    "read_published",
]
