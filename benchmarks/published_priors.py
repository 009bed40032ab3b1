"""Whether relatives predict an expert's level: each model with its own row is left out and predicted from the others.

    python benchmarks/published_priors.py

prints the rank correlation and the error between the LMArena Elo of every category, in Elo points, and the prediction
from its family, its declared skill and the other rows, next to the mean of its family and to one number for all.
LMArena leaderboard dataset (CC-BY-4.0), GenAI-Arena; figures and sources in `diffusiongpt/ranking/published.yaml`.
"""

from __future__ import annotations

import argparse
import json
from math import log

import numpy as np
from scipy.stats import spearmanr

from diffusiongpt.ranking.published import OVERALL, REFERENCE_ELO, Leaderboards, Row, published
from diffusiongpt.zoo.expert import Capabilities, Expert

ELO_PER_LOG_ODDS = 400 / log(10)


def guess_by_kin(row: Row, others: Leaderboards) -> dict[str, float]:
    """Elo by category as the priors would predict it if the model had no row."""
    can = Capabilities.model_validate({"text_rendering_en": row.writes})
    stranger = Expert(id="left-out", repo="left/out", architecture=row.family, capabilities=can)
    standing = others.standing(stranger)
    level = REFERENCE_ELO + ELO_PER_LOG_ODDS * standing.level
    return {name: level + ELO_PER_LOG_ODDS * standing.shifts.get(name, 0.0) for name in row.elo}


def guess_by_family(row: Row, others: Leaderboards) -> dict[str, float]:
    """The plain mean of the family's overall Elo for every category; of all rows if it has no family."""
    kin = [other for other in others.rows.values() if other.family == row.family] or list(others.rows.values())
    return dict.fromkeys(row.elo, float(np.mean([other.elo[OVERALL] for other in kin])))


def compare(rows: list[Row], boards: Leaderboards, *, overall: bool) -> dict[str, dict[str, float]]:
    """Rank correlation and error of both predictions over the cells of the rows."""
    cells = [(row, name) for row in rows for name in row.elo if (name == OVERALL) == overall]
    truth = np.array([row.elo[name] for row, name in cells])
    report = {}
    for title, guess in (("kin and skill", guess_by_kin), ("mean of the family", guess_by_family)):
        guesses = {row.repo: guess(row, boards.without(row.repo)) for row in rows}
        found = np.array([guesses[row.repo][name] for row, name in cells])
        error = float(np.sqrt(np.mean((found - truth) ** 2)))
        report[title] = {
            "rank_correlation": round(float(spearmanr(found, truth)[0]), 3),
            "rms_error_elo": round(error, 1),
        }
    spread = float(truth.std())
    report["one number for all"] = {"rank_correlation": 0.0, "rms_error_elo": round(spread, 1)}
    return report


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    boards = published()
    everybody = [row for row in boards.rows.values() if not row.is_service]
    listed = [row for row in everybody if not row.anchored]
    report = {
        f"LMArena by category, {len(listed)} models, {sum(len(row.elo) - 1 for row in listed)} cells": compare(
            listed, boards, overall=False
        ),
        f"overall, {len(everybody)} models, older arenas anchored": compare(everybody, boards, overall=True),
    }
    if arguments.json:
        print(json.dumps(report))
        return
    for title, figures in report.items():
        print(title)
        for name, values in figures.items():
            rank, error = values["rank_correlation"], values["rms_error_elo"]
            print(f"  {name:<20} rank correlation {rank:+.2f}   error {error:.0f} Elo")


if __name__ == "__main__":
    main()
