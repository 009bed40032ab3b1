"""Where and how an expert would draw on a machine: what fits, what it takes, and how long it would take."""

from __future__ import annotations

from diffusiongpt.placement.costs import cost_of, planned_for, speed_of, stated_bytes
from diffusiongpt.placement.job import Measured
from diffusiongpt.placement.kinds import KindsPlanner
from diffusiongpt.placement.measurements import Measurement, Measurements
from diffusiongpt.placement.planner import USABLE, Expected, Planner

__all__ = [
    "USABLE",
    "Expected",
    "KindsPlanner",
    "Measured",
    "Measurement",
    "Measurements",
    "Planner",
    "cost_of",
    "planned_for",
    "speed_of",
    "stated_bytes",
]
