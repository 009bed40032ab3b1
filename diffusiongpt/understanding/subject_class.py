"""The coarse class of what a picture is about, from a few signs that are weighed by one linear fit.

People do not agree on it: a traveller in a desert is a character to one and a scene to another. So the rule of
`main_subject.py` is one sign among others, and their weights are those that predict the labels of UniGenBench's
development set best (CC BY 4.0, https://github.com/CodeGoat24/UniGenBench; prompts in English and Chinese).
`python benchmarks/understanding.py --data DIR --write` makes them, and prints how often they are right on prompts that
they were not fitted to.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any, cast, get_args

import numpy as np
import numpy.typing as npt

from diffusiongpt.flow import SubjectClass
from diffusiongpt.understanding.caseless import Caseless
from diffusiongpt.understanding.main_subject import CLASSES

if TYPE_CHECKING:
    from diffusiongpt.understanding.lexicon import Mention

Floats = npt.NDArray[np.float64]

RIDGE = 6.0
"""Strength of the penalty: with 1 to 10 the same within half a point (`benchmarks/understanding.py`)."""

_SUBJECTS = ("character", "animal", "scene", "object", "design")
_WORN = Caseless(
    r"\b(?:wear(?:s|ing)?|dressed|in (?:an?|the|his|her|its)? ?(?:[\w'’]+ ){0,2}"
    r"(?:robes?|suit|uniform|costume|armou?r|apron|coat|jacket|hat|dress))\b|穿|戴着|身披|服饰|披着"
)
_HUMAN = Caseless(
    r"\b(?:expression|his|her|smil\w*|proudly|sadly|solemn|serious|holding|hugging|cook\w*|reading|playing|dancing"
    r"|anthropomorphic|personif\w*)\b|拟人|表情|神情|微笑|得意|骄傲|拿着|手持|手里|抱着|弹|跳舞|扮演"
)
_PAGE = Caseless(r"\b(?:interface|ui|website|app|poster|page)\b|界面|网页|海报")
_OPENS_WITH_PLACE = re.compile(
    r"^\s*(?:[^:：,，.。]{0,60}[:：]\s*)?(?:[^,，.。]{0,40}\bstyle,\s*|[^,，.。]{0,14}(?:风格|画风|质感|光影|动画|照片)[^,，.。]{0,4}，)?"
    r"(?:(?:in|on|at|under|inside|against|beneath|beside|by|near|within|atop|from|outside|amid|above|over|behind"
    r"|underwater|through|along)\b[^,.]*,"
    r"|在?[^，。]{1,24}(?:里|中|上|下|内|前|旁|外|间|后|背景下|深处|之上|顶端|上空|时分|傍晚|清晨)[^，。]{0,3}，)",
    re.IGNORECASE,
)

_KNOWN: tuple[SubjectClass, ...] = get_args(SubjectClass)


def signs_of(
    text: str,
    mentions: Sequence[Mention],
    subjects: Mapping[str, float],
    *,
    by_rule: SubjectClass,
    counted: SubjectClass | None,
) -> dict[str, float]:
    """What speaks for a class, by name.

    Args:
        text: The text without what it denies or has written in the picture.
        mentions: Mentions of subjects, weighted by how much the picture is about them.
        subjects: Probability of each subject node.
        by_rule: The class by the rule of the main subject.
        counted: What the first measure word of a Chinese text counts.
    """
    classes = [CLASSES.get(mention.node, "other") for mention in mentions]
    strongest = {
        one: max((m.weight for m, cls in zip(mentions, classes, strict=True) if cls == one), default=0.0)
        for one in _KNOWN
    }
    place, human, dressed = (
        bool(found) for found in (_OPENS_WITH_PLACE.match(text), _HUMAN.search(text), _WORN.search(text))
    )
    animal, character = strongest["animal"] > 0, strongest["character"] > 0
    yes_or_no = {
        **{f"first is {one}": bool(classes) and classes[0] == one for one in _KNOWN},
        "nothing known": not classes,
        "counts people": counted == "character",
        "counts animals": counted == "animal",
        "clothes": dressed,
        "like a person": human,
        "a page": bool(_PAGE.search(text)),
        "opens with a place": place,
        "an animal in clothes": dressed and animal,
        "an animal like a person": human and animal,
        "a thing in clothes": dressed and not animal and not character,
        "a thing like a person": human and not animal and not character,
        "a place, then an animal": place and animal,
        "a place, then a character": place and character,
        "a place, then neither": place and not animal and not character,
    }
    return {
        **{f"about {node}": subjects.get(node, 0.0) for node in _SUBJECTS},
        **{f"rule says {one}": 0.5 * (by_rule == one) for one in _KNOWN},
        **{f"strongest {one}": 0.5 * weight for one, weight in strongest.items()},
        **{name: 0.5 * value for name, value in yes_or_no.items()},
    }


def likeliest_class(signs: Mapping[str, float], fit: Mapping[str, Any] | None = None) -> SubjectClass:
    """The class that the signs speak for, by a fit or by that of the package."""
    known = fit or _fitted()
    scores = {
        one: start + sum(known["weights"][name][index] * value for name, value in signs.items())
        for index, (one, start) in enumerate(zip(known["classes"], known["start"], strict=True))
    }
    return max(scores, key=lambda one: scores[one])


def fit_classes(labelled: Sequence[tuple[Mapping[str, float], SubjectClass]]) -> dict[str, Any]:
    """Weights of signs by ridge regression: for each sign one per class, and what each class starts with."""
    names = list(labelled[0][0])
    values: Floats = np.array([[signs[name] for name in names] for signs, _ in labelled])
    targets: Floats = np.array([[label == one for one in _KNOWN] for _, label in labelled], dtype=np.float64)
    centre, share = values.mean(axis=0), targets.mean(axis=0)
    centred = values - centre
    weights = np.linalg.solve(centred.T @ centred + RIDGE * np.eye(len(names)), centred.T @ (targets - share))
    start = share - centre @ weights
    rounded = {name: [round(float(one), 4) for one in row] for name, row in zip(names, weights, strict=True)}
    return {"classes": list(_KNOWN), "start": [round(float(one), 4) for one in start], "weights": rounded}


@cache
def _fitted() -> dict[str, Any]:
    text = resources.files("diffusiongpt.understanding").joinpath("subject_class.json").read_text(encoding="utf-8")
    return cast("dict[str, Any]", json.loads(text))
