"""What flows from a prompt to a picture, as shapes only, in the order of the flow."""

from __future__ import annotations

from diffusiongpt.flow.call import Call, Drawing, Dropped, Recovery, RecoveryStep
from diffusiongpt.flow.record import Fallback, PictureRecord, ShownIn
from diffusiongpt.flow.request import (
    MAX_PROMPT_CHARS,
    MAX_SEED,
    Explore,
    OnStepEnd,
    Policy,
    Prefer,
    Request,
    fresh_seed,
    read_options,
)
from diffusiongpt.flow.route import (
    GIB,
    NEAR_TIE,
    Candidate,
    MachineSpec,
    Placement,
    PlacementKind,
    Readiness,
    Rejection,
    Route,
    SearchPath,
    SearchStep,
    SearchTrace,
    as_sold,
    win_probability,
)
from diffusiongpt.flow.understanding import NodeWeight, Paradigm, SubjectClass, ThinkerName, Understanding

__all__ = [
    "GIB",
    "MAX_PROMPT_CHARS",
    "MAX_SEED",
    "NEAR_TIE",
    "Call",
    "Candidate",
    "Drawing",
    "Dropped",
    "Explore",
    "Fallback",
    "MachineSpec",
    "NodeWeight",
    "OnStepEnd",
    "Paradigm",
    "PictureRecord",
    "Placement",
    "PlacementKind",
    "Policy",
    "Prefer",
    "Readiness",
    "Recovery",
    "RecoveryStep",
    "Rejection",
    "Request",
    "Route",
    "SearchPath",
    "SearchStep",
    "SearchTrace",
    "ShownIn",
    "SubjectClass",
    "ThinkerName",
    "Understanding",
    "as_sold",
    "fresh_seed",
    "read_options",
    "win_probability",
]
