"""Measuring a router: how good its picks are on prompts it has not seen, compared with simpler methods."""

from diffusiongpt.evaluation.data import Exam, Training, Votes, simulate_votes
from diffusiongpt.evaluation.methods import Forecaster, Method, Picker
from diffusiongpt.evaluation.reading import read_exam, read_ratings, read_votes
from diffusiongpt.evaluation.report import Calibration, Report, calibration, evaluate, held_out_calibration
from diffusiongpt.evaluation.scoring import Result, score

__all__ = [
    "Calibration",
    "Exam",
    "Forecaster",
    "Method",
    "Picker",
    "Report",
    "Result",
    "Training",
    "Votes",
    "calibration",
    "evaluate",
    "held_out_calibration",
    "read_exam",
    "read_ratings",
    "read_votes",
    "score",
    "simulate_votes",
]
