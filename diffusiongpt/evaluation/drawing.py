"""The learning curve as a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from diffusiongpt.errors import NeedsExtraError, RequestError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from diffusiongpt.evaluation.curves import Point
    from diffusiongpt.evaluation.scoring import Result

STYLES = {"ours": ("#0b6e4f", "o"), "knn": ("#3a6ea5", "s"), "best_single": ("#8a8a8a", "^")}
"""Colour and mark by method; they differ in lightness and shape too, for those who see no colours."""


def check_drawing() -> None:
    """Fail early if no picture can be drawn.

    Raises:
        NeedsExtraError: If matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401, ICN001 - only whether it is there
    except ImportError as error:
        raise NeedsExtraError(
            "drawing a learning curve needs matplotlib", hint='pip install "diffusiongpt[evaluation]"'
        ) from error


def draw_curve(points: Sequence[Point], path: Path, *, all_data: Mapping[str, Result] | None = None) -> None:
    """Draw shares against votes, with the range of the draws as a band.

    Args:
        points: Of `learning_curve`.
        path: Picture to write; its suffix says which format.
        all_data: Results with all ratings, where votes were simulated from them; drawn as dashed lines.

    Raises:
        NeedsExtraError: If matplotlib is not installed.
        RequestError: If there is nothing to draw, or the picture cannot be written.
    """
    check_drawing()
    from matplotlib.figure import Figure

    told = [point for point in points if point.share is not None]
    if not told:
        raise RequestError("the learning curve has no point", hint="Test experts that differ in their ratings.")
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for method in dict.fromkeys(point.method for point in told):
        _draw_method(axes, [point for point in told if point.method == method], all_data)
    axes.set_xscale("log")
    sizes = sorted({point.votes for point in told})
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axes.minorticks_off()
    axes.set_xlabel("votes")
    axes.set_ylabel("share of the way from random to oracle")
    axes.grid(visible=True, which="major", color="#e5e5e5")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right")
    try:
        figure.savefig(path, dpi=150)
    except (OSError, ValueError) as error:
        raise RequestError(f"cannot write {path}: {error}", hint="Pass a path that ends in .png.") from error


def _draw_method(axes: Any, points: Sequence[Point], all_data: Mapping[str, Result] | None) -> None:
    method = points[0].method
    color, marker = STYLES.get(method, ("#c05621", "d"))
    votes = [point.votes for point in points]
    axes.plot(votes, [point.share for point in points], color=color, marker=marker, label=method)
    axes.fill_between(votes, [point.low for point in points], [point.high for point in points], color=color, alpha=0.15)
    if all_data is not None and all_data[method].share is not None:
        axes.axhline(all_data[method].share, color=color, linestyle="--", linewidth=1, label=f"{method}, all ratings")
