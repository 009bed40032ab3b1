"""Measures the tiny zoo: whether each expert draws what is requested, and only in its own style.

Rows of the matrix are the expert used, columns the requested style; a cell is the share of pictures in which
the judge finds object, colour, background and the requested style all correct.

    python benchmarks/tiny_zoo.py --per-cell 96
"""

from __future__ import annotations

import json
import random
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from diffusiongpt.zoo.tiny import BACKGROUNDS, COLORS, OBJECTS, STYLES, TinyJudge  # noqa: E402
from examples.tiny_zoo.captions import caption, foreign_words, style_words  # noqa: E402
from examples.tiny_zoo.cards import SETTINGS  # noqa: E402
from examples.tiny_zoo.data import HELD_OUT_PAIRS, originals, scene_of  # noqa: E402
from examples.tiny_zoo.drawing import Scene  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ZOO = ROOT / "diffusiongpt" / "zoo" / "tiny"
GENERALIST = "generalist"
BATCH = 24

# Words for styles that the captions never have.
UNKNOWN_STYLES = (
    *("8-bit", "16-bit sprite", "retro video game sprite", "flat icon", "clip art", "minimalist logo", "svg sticker"),
    *("graphite drawing", "charcoal doodle", "crayon and graphite drawing", "ink etching", "notebook scribble"),
    *("impasto", "thick brush strokes", "canvas by Van Gogh", "palette knife picture", "low-res arcade graphic"),
    *(
        "八位机游戏画面",
        "16位像素风",
        "扁平化图标",
        "极简标志",
        "铅笔画",
        "炭笔速写",
        "手绘线稿",
        "厚涂",
        "梵高",
        "剪贴画",
    ),
)

# What the rest of the project relies on.
RIGHT_EXPERT = 0.92
WRONG_EXPERT = 0.15
GENERALIST_RANGE = (0.30, 0.85)
NEVER_SEEN_PAIRS = 0.80
MS_PER_PICTURE = 1000.0


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything measured.

    Attributes:
        matrix: Expert, then style asked: the share of pictures with all four things right.
        held_out: Style: the same for its expert, for objects in colours that training never saw together.
        unknown: Style: the same for its expert, when the style is named in words that no caption had.
        babble: Style: the same for its expert, with meaningless words in the style's place.
        judge: Question: the judge's accuracy on freshly drawn originals.
        ms_per_picture: One picture at a time on one core, warm, median.
        per_cell: Pictures behind each share.
    """

    matrix: dict[str, dict[str, float]]
    held_out: dict[str, float]
    unknown: dict[str, float]
    babble: dict[str, float]
    judge: dict[str, float]
    ms_per_picture: float
    per_cell: int


@dataclass(frozen=True, kw_only=True)
class Floor:
    """One promise of the zoo and whether the figures keep it."""

    promise: str
    figure: str
    met: bool


def main(
    per_cell: Annotated[int, typer.Option(min=1, help="Pictures behind each figure.")] = 48,
    seed: Annotated[int, typer.Option(help="For prompts and pictures.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    zoo: Annotated[Path, typer.Option(help="The folder with the five pipelines.")] = ZOO,
) -> None:
    """Measure the tiny zoo on one core."""
    import torch

    torch.set_num_threads(1)
    report = measure(zoo, per_cell=per_cell, seed=seed)
    floors = floors_of(report)
    if as_json:
        print(json.dumps({**asdict(report), "floors": [asdict(floor) for floor in floors]}, ensure_ascii=False))
    else:
        show(report, floors)


def measure(zoo: Path, *, per_cell: int, seed: int) -> Report:
    """Draw and judge everything.

    Args:
        zoo: The folder with the five pipelines and the judge.
        per_cell: Pictures behind each share.
        seed: For prompts and pictures.
    """
    judge = TinyJudge.load(zoo / "judge.safetensors")
    matrix: dict[str, dict[str, float]] = {}
    held_out: dict[str, float] = {}
    unknown: dict[str, float] = {}
    babble: dict[str, float] = {}
    for expert in (*STYLES, GENERALIST):
        pipeline = load(zoo / expert)
        asked = {style: _prompts(style, per_cell, seed) for style in STYLES}
        matrix[expert] = {style: _share(pipeline, judge, prompts, seed) for style, prompts in asked.items()}
        if expert != GENERALIST:
            held_out[expert] = _share(pipeline, judge, _prompts(expert, per_cell, seed, held_out=True), seed)
            unknown[expert] = _share(pipeline, judge, _prompts(expert, per_cell, seed, words=_unknown_style), seed)
            babble[expert] = _share(pipeline, judge, _prompts(expert, per_cell, seed, words=foreign_words), seed)
    return Report(
        matrix=matrix,
        held_out=held_out,
        unknown=unknown,
        babble=babble,
        judge=_judge_accuracy(judge, seed),
        ms_per_picture=_milliseconds(load(zoo / STYLES[0])),
        per_cell=per_cell,
    )


def load(folder: Path) -> Any:
    """One of the five pipelines, loaded as any user would."""
    import torch
    from diffusers import DiffusionPipeline

    pipeline_class: Any = DiffusionPipeline
    pipeline = pipeline_class.from_pretrained(folder, use_safetensors=True, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def floors_of(report: Report) -> list[Floor]:
    """Compare the figures with what the zoo promises."""
    right = min(report.matrix[style][style] for style in STYLES)
    wrong = max(report.matrix[expert][style] for expert in STYLES for style in STYLES if expert != style)
    low, high = min(report.matrix[GENERALIST].values()), max(report.matrix[GENERALIST].values())
    unseen = min(report.held_out.values())
    floor, ceiling = GENERALIST_RANGE
    return [
        Floor(promise=f"right expert at least {RIGHT_EXPERT}", figure=f"{right:.3f}", met=right >= RIGHT_EXPERT),
        Floor(promise=f"wrong expert at most {WRONG_EXPERT}", figure=f"{wrong:.3f}", met=wrong <= WRONG_EXPERT),
        Floor(
            promise=f"generalist from {floor} to {ceiling} in each style",
            figure=f"{low:.3f} to {high:.3f}",
            met=floor <= low and high <= ceiling,
        ),
        Floor(
            promise=f"pairs never seen together at least {NEVER_SEEN_PAIRS}",
            figure=f"{unseen:.3f}",
            met=unseen >= NEVER_SEEN_PAIRS,
        ),
        Floor(
            promise=f"at most {MS_PER_PICTURE:.0f} ms a picture",
            figure=f"{report.ms_per_picture:.0f} ms",
            met=report.ms_per_picture <= MS_PER_PICTURE,
        ),
    ]


def show(report: Report, floors: Sequence[Floor]) -> None:
    """Print the report for people."""
    print(f"All four right, {report.per_cell} pictures per cell; rows: expert used, columns: requested style")
    print(f"{'':12}" + "".join(f"{style:>9}" for style in STYLES))
    for expert, shares in report.matrix.items():
        print(f"{expert:12}" + "".join(f"{shares[style]:9.3f}" for style in STYLES))
    print("\nThe right expert")
    print(f"{'unseen pair':12}" + "".join(f"{report.held_out[style]:9.3f}" for style in STYLES))
    print(f"{'new words':12}" + "".join(f"{report.unknown[style]:9.3f}" for style in STYLES))
    print(f"{'babble':12}" + "".join(f"{report.babble[style]:9.3f}" for style in STYLES))
    print("\nThe judge on drawn originals: " + ", ".join(f"{name} {share:.3f}" for name, share in report.judge.items()))
    print(f"One picture, warm, one core: {report.ms_per_picture:.0f} ms\n")
    for floor in floors:
        print(f"{'met   ' if floor.met else 'MISSED'}  {floor.promise}: {floor.figure}")


def _prompts(
    style: str,
    count: int,
    seed: int,
    *,
    held_out: bool = False,
    words: Callable[[random.Random], str] | None = None,
) -> list[tuple[Scene, str]]:
    rng = random.Random(f"{seed} {style} {held_out}")
    pairs = [(name, color) for name in OBJECTS for color in COLORS if ((name, color) in HELD_OUT_PAIRS) == held_out]
    made = []
    for _ in range(count):
        name, color = rng.choice(pairs)
        scene = Scene(object=name, color=color, background=rng.choice(BACKGROUNDS), style=style)
        named = words(rng) if words else style_words(style, rng)
        made.append((scene, caption(scene, rng, style=named)))
    return made


def _unknown_style(rng: random.Random) -> str:
    return rng.choice(UNKNOWN_STYLES)


def _share(pipeline: Any, judge: TinyJudge, prompts: Sequence[tuple[Scene, str]], seed: int) -> float:
    import torch

    right = 0
    for start in range(0, len(prompts), BATCH):
        batch = prompts[start : start + BATCH]
        generators = [torch.Generator().manual_seed(seed * 100_000 + start + index) for index in range(len(batch))]
        images = pipeline(prompt=[text for _, text in batch], generator=generators, **SETTINGS).images
        for (scene, _), reading in zip(batch, judge.read_batch(images), strict=True):
            seen = Scene(object=reading.object, color=reading.color, background=reading.background, style=reading.style)
            right += seen == scene
    return right / len(prompts)


def _judge_accuracy(judge: TinyJudge, seed: int, count: int = 600) -> dict[str, float]:
    from PIL import Image

    # Far from the training seeds: these originals are new to the judge.
    fresh = originals(count, size=64, seed=7_000 + seed, workers=1)
    readings = judge.read_batch([Image.fromarray(pixels) for pixels in fresh.pixels])
    scenes = [scene_of(row) for row in fresh.labels]
    return {
        question: statistics.fmean(
            getattr(reading, question) == getattr(scene, question)
            for reading, scene in zip(readings, scenes, strict=True)
        )
        for question in ("object", "color", "background", "style")
    }


def _milliseconds(pipeline: Any, repeats: int = 9) -> float:
    times = []
    for _ in range(repeats + 2):
        start = time.perf_counter()
        pipeline(prompt="pixel art of a red heart on a yellow background", **SETTINGS)
        times.append((time.perf_counter() - start) * 1000)
    return statistics.median(times[2:])


if __name__ == "__main__":
    typer.run(main)
