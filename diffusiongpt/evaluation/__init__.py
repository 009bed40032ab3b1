"""Measuring a router: how good its picks are on prompts it has not seen, compared with simpler methods."""

from __future__ import annotations

from diffusiongpt.evaluation.data import Exam, Floats, Indexes, Training, Votes, simulate_votes
from diffusiongpt.evaluation.methods import (
    BestSingle,
    CategoryTable,
    Forecaster,
    Knn,
    Method,
    PaperTop5,
    Picker,
    bradley_terry,
    levels,
    rating_levels,
)
from diffusiongpt.evaluation.ours import Ours, RememberingEmbedder, best_embedder
from diffusiongpt.evaluation.reading import read_exam, read_ratings, read_votes
from diffusiongpt.evaluation.report import (
    METHODS,
    Calibration,
    Report,
    ask,
    calibration,
    evaluate,
    held_out_calibration,
    methods_for,
)
from diffusiongpt.evaluation.scoring import Result, score, share_of

__all__ = [
    "METHODS",
    "BestSingle",
    "Calibration",
    "CategoryTable",
    "Exam",
    "Floats",
    "Forecaster",
    "Indexes",
    "Knn",
    "Method",
    "Ours",
    "PaperTop5",
    "Picker",
    "RememberingEmbedder",
    "Report",
    "Result",
    "Training",
    "Votes",
    "ask",
    "best_embedder",
    "bradley_terry",
    "calibration",
    "evaluate",
    "held_out_calibration",
    "levels",
    "methods_for",
    "rating_levels",
    "read_exam",
    "read_ratings",
    "read_votes",
    "score",
    "share_of",
    "simulate_votes",
]
