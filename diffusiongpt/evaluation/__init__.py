"""Measuring a router: how good are its picks on prompts it has not seen, beside simpler ways to choose."""

from diffusiongpt.evaluation.checks import Calibration, calibration, held_out_calibration, rewordings, stability
from diffusiongpt.evaluation.curves import Point, draw_curve, draw_votes, learning_curve, simulate_votes
from diffusiongpt.evaluation.data import Exam, Training, Votes
from diffusiongpt.evaluation.methods import Forecaster, Method, Picker
from diffusiongpt.evaluation.reading import read_exam, read_ratings, read_votes
from diffusiongpt.evaluation.report import Report, evaluate
from diffusiongpt.evaluation.scoring import Result, score

__all__ = [
    "Calibration",
    "Exam",
    "Forecaster",
    "Method",
    "Picker",
    "Point",
    "Report",
    "Result",
    "Training",
    "Votes",
    "calibration",
    "draw_curve",
    "draw_votes",
    "evaluate",
    "held_out_calibration",
    "learning_curve",
    "read_exam",
    "read_ratings",
    "read_votes",
    "rewordings",
    "score",
    "simulate_votes",
    "stability",
]
