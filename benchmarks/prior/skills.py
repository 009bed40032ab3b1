"""Two published skills that routes use by themselves: counting, and what a rewritten prompt gains where thought is due.

Counting is the column of GenEval, from its own table and those of makers. What rewriting gains is the mean of the eight
reasoning skills of T2I-CoReBench with a rewritten prompt less that without one, by its first judge. Four models were
measured so; the gain of others with figures is on the line through these by what they reach without, and no larger
than the largest that was measured.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from fit import Fit, Model, norm, read_models

REASONING = ("LR", "BR", "HR", "PR", "GR", "AR", "CR", "RR")
BENCHMARK, JUDGE, REWRITTEN = "T2I-CoReBench", "gemini-2.5-flash", " + rewriting"


def counting(fit: Fit) -> dict[str, Any]:
    """GenEval's share of right counts (two to four objects), by repository and by family."""
    found: dict[str, list[float]] = defaultdict(list)
    for row in fit.rows:
        if row.source.startswith("GenEval") and row.column == "counting":
            found[row.model].append(row.value)
    return _by_kin({name: float(np.mean(values)) for name, values in found.items()}, fit.models, digits=2)


def rewriting(data: Path, fit: Fit) -> dict[str, Any]:
    """Elo points that a rewritten prompt adds, by repository and by family, and usually."""
    plain, rewritten = read_reasoning(data)
    both = sorted(set(plain) & set(rewritten))
    measured = {name: rewritten[name] - plain[name] for name in both}
    slope, start = np.polyfit([plain[name] for name in both], [measured[name] for name in both], 1)
    most = max(measured.values())
    gains = {
        name: measured.get(name, float(np.clip(start + slope * value, 0.0, most))) / fit.table_scale[BENCHMARK]
        for name, value in plain.items()
    }
    open_weights = [gain for name, gain in gains.items() if fit.models[name].kind != "service"]
    return {"usual": round(float(np.mean(open_weights))), **_by_kin(gains, fit.models)}


def read_reasoning(data: Path) -> tuple[dict[str, float], dict[str, float]]:
    """Mean of the reasoning skills by model, with prompts as they are and with rewritten ones."""
    _, spelling = read_models()
    found: dict[tuple[str, bool], dict[str, float]] = defaultdict(dict)
    with (data / "tables" / "model_by_skill.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            name = spelling.get(norm(row["model"].removesuffix(REWRITTEN)))
            if name and (row["benchmark"], row["judge"]) == (BENCHMARK, JUDGE) and row["skill"] in REASONING:
                found[name, row["model"].endswith(REWRITTEN)][row["skill"]] = float(row["score"])
    plain, rewritten = (
        {
            name: float(np.mean(list(skills.values())))
            for (name, other), skills in found.items()
            if other is rewrites and len(skills) == len(REASONING)
        }
        for rewrites in (False, True)
    )
    return plain, rewritten


def _by_kin(figures: Mapping[str, float], models: Mapping[str, Model], digits: int | None = None) -> dict[str, Any]:
    """Figures by repository, and their means by family of models with weights or a service of ours."""
    families: dict[str, list[float]] = defaultdict(list)
    for name, value in figures.items():
        families[models[name].family].append(value)
    return {
        "experts": {
            models[name].repo: round(value, digits) for name, value in sorted(figures.items()) if models[name].repo
        },
        "families": {name: round(float(np.mean(values)), digits) for name, values in sorted(families.items())},
    }
