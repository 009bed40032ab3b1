"""Levels of edit experts: the arena of image edits, and for editors that it does not list, models of their family.

How well a model draws says little of how well it changes a picture, so nothing of the other tables enters. A model that
is not listed has the level of its family, drawn toward the mean of all models with open weights (or of all services) as
far as families differ less than their members do: a one-way Gaussian model of the board.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from fit import HERE, Model, norm, read_models, read_yaml

from diffusiongpt.backends import tasks_of
from diffusiongpt.zoo import Expert

SEVERAL = "several_pictures"
"""What several pictures at once add to the level: the board's column of such edits."""

BOARD = "LMArena image edit"
OWN_DOUBT = 15.0
"""Elo points of doubt about a listed model; the board prints no intervals. Stated, not measured."""


@dataclass(frozen=True)
class Effects:
    """The one-way model: means of open weights and of services, and the spread of families and of their members."""

    means: Mapping[bool, float]
    family: float
    member: float


def read_editors() -> tuple[dict[str, Model], dict[str, str]]:
    """All models, and those that only edit, by name; and the name that each spelling stands for."""
    models, spelling = read_models()
    editors, others = read_models(HERE / "editors.csv")
    return models | editors, spelling | others


def read_board(data: Path, spelling: Mapping[str, str]) -> dict[str, dict[str, float]]:
    """Figures of the board by model."""
    board = read_yaml(data / "leaderboards.yaml")["lmarena_image_edit"]["models"]
    found: dict[str, dict[str, float]] = {}
    for name, one in board.items():
        # the board has some models twice, by the size of the picture; the better setting is the first
        if known := spelling.get(norm(name)):
            found.setdefault(known, dict(one["elo"]))
    return found


def effects_of(board: Mapping[str, Mapping[str, float]], models: Mapping[str, Model]) -> Effects:
    """Means by kind, and variances between and within families (the moments of a one-way analysis of variance)."""
    means = {
        service: float(np.mean([one["overall"] for name, one in board.items() if _is_service(models[name]) is service]))
        for service in (True, False)
    }
    groups: dict[tuple[str, bool], list[float]] = defaultdict(list)
    for name, one in board.items():
        service = _is_service(models[name])
        groups[models[name].family, service].append(one["overall"] - means[service])
    several = [np.array(group) for group in groups.values() if len(group) > 1]
    within = sum(float(((group - group.mean()) ** 2).sum()) for group in several) / sum(len(g) - 1 for g in several)
    family_means = [float(np.mean(group)) for group in groups.values()]
    size = len(board) / len(groups)
    between = max(float(np.var(family_means, ddof=1)) - within / size, 0.0)
    return Effects(means, between**0.5, within**0.5)


def edits(data: Path, zoo: Iterable[Expert]) -> dict[str, Any]:
    """What `prior.json` says of edits: of models that the board lists, and of experts that edit and are kin to them."""
    models, spelling = read_editors()
    board = read_board(data, spelling)
    effects = effects_of(board, models)
    gaps = {name: one["multi_image_edit"] - one["overall"] for name, one in board.items() if "multi_image_edit" in one}
    usual = float(np.mean(list(gaps.values())))
    by_repo = {model.repo: name for name, model in models.items() if model.repo}
    experts = {
        models[name].repo: _listed(one, gaps.get(name), usual) for name, one in board.items() if models[name].repo
    }
    families = {}
    for expert in zoo:
        model = models.get(by_repo.get(expert.repo, ""))
        kin = [name for name in board if model is not None and models[name].family == model.family]
        if model is None or not kin or "edit" not in tasks_of(expert):
            continue
        standing = _of_kin(model, kin, board, models, effects)
        experts.setdefault(expert.repo, standing)
        families[expert.architecture or model.family] = standing
    return {
        # models that no board lists are rarely as good as those that one does
        "unknown": {
            "level": round(effects.means[False] - 0.5 * effects.member, 1),
            "doubt": round(float(np.hypot(effects.family, effects.member)), 1),
            "source": "editors that no board lists",
        },
        "experts": dict(sorted(experts.items())),
        "families": dict(sorted(families.items())),
    }


def _listed(figures: Mapping[str, float], gap: float | None, usual: float) -> dict[str, Any]:
    offsets = {} if gap is None else {SEVERAL: round(gap - usual)}
    shown = {BOARD: dict(figures)}
    return {
        "level": figures["overall"], "doubt": OWN_DOUBT, "offsets": offsets, "figures": shown, "measured": True,
        "source": BOARD,
    }  # fmt: skip


def _of_kin(
    model: Model,
    kin: list[str],
    board: Mapping[str, Mapping[str, float]],
    models: Mapping[str, Model],
    effects: Effects,
) -> dict[str, Any]:
    own = [board[name]["overall"] - effects.means[_is_service(models[name])] for name in kin]
    certainty = effects.family**2 / (effects.family**2 + effects.member**2 / len(own))
    level = effects.means[_is_service(model)] + certainty * float(np.mean(own))
    doubt = (effects.member**2 + effects.family**2 * (1 - certainty)) ** 0.5
    source = f"{BOARD}: other models of the family {model.family}"
    return {"level": round(level, 1), "doubt": round(doubt, 1), "source": source}


def _is_service(model: Model) -> bool:
    return model.kind == "service"
