"""From a route to pictures."""

from __future__ import annotations

from diffusiongpt.drawing.ballot import draw_ballot
from diffusiongpt.drawing.batch import Batch
from diffusiongpt.drawing.candidates import Candidates, Others
from diffusiongpt.drawing.checked import checked, pictures_of
from diffusiongpt.drawing.executor import Executor, FleetExecutor, HostedExecutor, Replica
from diffusiongpt.drawing.fairness import FairOrder, Place
from diffusiongpt.drawing.in_process import LocalExecutor
from diffusiongpt.drawing.machine import Machine
from diffusiongpt.drawing.painter import Painter
from diffusiongpt.drawing.queue import Queue, Ticket
from diffusiongpt.drawing.resolve import resolve
from diffusiongpt.drawing.size import MAX_AREA_FACTOR, SIDE_STEP
from diffusiongpt.drawing.spending import Spending

__all__ = [
    "MAX_AREA_FACTOR",
    "SIDE_STEP",
    "Batch",
    "Candidates",
    "Executor",
    "FairOrder",
    "FleetExecutor",
    "HostedExecutor",
    "LocalExecutor",
    "Machine",
    "Others",
    "Painter",
    "Place",
    "Queue",
    "Replica",
    "Spending",
    "Ticket",
    "checked",
    "draw_ballot",
    "pictures_of",
    "resolve",
]
