"""What flows from a prompt to a picture, as shapes only, in the order of the flow."""

from __future__ import annotations

from diffusiongpt.flow.call import Bill, Call, Drawing, Dropped, Meter, Recovery, RecoveryStep, fewer
from diffusiongpt.flow.candidate import PRICE, TIME, Candidate, Readiness, Rejection, win_probability
from diffusiongpt.flow.columns import duration
from diffusiongpt.flow.inputs import MAX_INPUT_BYTES, MAX_INPUTS, ImageSource, InputImage, read_image, read_images
from diffusiongpt.flow.placement import GIB, MachineSpec, Placement, PlacementKind, as_sold
from diffusiongpt.flow.record import Fallback, InputRecord, PictureRecord, ShownIn
from diffusiongpt.flow.request import (
    MAX_PROMPT_CHARS,
    MAX_SEED,
    MAX_SIDE,
    MIN_SIDE,
    Explore,
    OnStepEnd,
    Policy,
    Prefer,
    Request,
    SafetyLevel,
    check_prompt,
    fresh_seed,
    read_options,
)
from diffusiongpt.flow.route import NEAR_TIE, READS, RankingState, Route
from diffusiongpt.flow.signing import Signing
from diffusiongpt.flow.task import IN_PLACE, Task, nearest_task, wanted_task
from diffusiongpt.flow.trace import SearchPath, SearchStep, SearchTrace
from diffusiongpt.flow.understanding import (
    Adapter,
    Emphasis,
    Markup,
    NodeWeight,
    Paradigm,
    SafetyClass,
    SubjectClass,
    ThinkerName,
    Understanding,
    Unused,
)

__all__ = [
    "GIB",
    "IN_PLACE",
    "MAX_INPUTS",
    "MAX_INPUT_BYTES",
    "MAX_PROMPT_CHARS",
    "MAX_SEED",
    "MAX_SIDE",
    "MIN_SIDE",
    "NEAR_TIE",
    "PRICE",
    "READS",
    "TIME",
    "Adapter",
    "Bill",
    "Call",
    "Candidate",
    "Drawing",
    "Dropped",
    "Emphasis",
    "Explore",
    "Fallback",
    "ImageSource",
    "InputImage",
    "InputRecord",
    "MachineSpec",
    "Markup",
    "Meter",
    "NodeWeight",
    "OnStepEnd",
    "Paradigm",
    "PictureRecord",
    "Placement",
    "PlacementKind",
    "Policy",
    "Prefer",
    "RankingState",
    "Readiness",
    "Recovery",
    "RecoveryStep",
    "Rejection",
    "Request",
    "Route",
    "SafetyClass",
    "SafetyLevel",
    "SearchPath",
    "SearchStep",
    "SearchTrace",
    "ShownIn",
    "Signing",
    "SubjectClass",
    "Task",
    "ThinkerName",
    "Understanding",
    "Unused",
    "as_sold",
    "check_prompt",
    "duration",
    "fewer",
    "fresh_seed",
    "nearest_task",
    "read_image",
    "read_images",
    "read_options",
    "wanted_task",
    "win_probability",
]
