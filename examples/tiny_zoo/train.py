"""Makes the tiny zoo from nothing: python -m examples.tiny_zoo.train --minutes 90."""

from __future__ import annotations

import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from examples.tiny_zoo.stages import STAGES, Plan


class Stage(StrEnum):
    """The steps, in order; each leaves its result in the work folder."""

    DATA = "data"
    TEXT = "text"
    DECODER = "decoder"
    JUDGE = "judge"
    BASE = "base"
    EXPERTS = "experts"
    SAVE = "save"


def main(
    stages: Annotated[list[Stage] | None, typer.Argument(help="Which steps; all of them if none is named.")] = None,
    work: Annotated[Path, typer.Option(help="Where data and checkpoints are kept.")] = Path("runs/tiny_zoo"),
    out: Annotated[Path, typer.Option(help="Where the pipelines go.")] = Path("diffusiongpt/zoo/tiny"),
    minutes: Annotated[float, typer.Option(help="Training time of all steps together.")] = 75.0,
    processes: Annotated[int, typer.Option(help="Processors to use.")] = 2,
    seed: Annotated[int, typer.Option(help="For everything random.")] = 1,
) -> None:
    """Train what is not in the work folder yet; an interrupted base resumes where it stopped."""
    work.mkdir(parents=True, exist_ok=True)
    plan = Plan(work=work.resolve(), out=out.resolve(), minutes=minutes, processes=processes, seed=seed)
    for stage in stages or list(Stage):
        start = time.monotonic()
        STAGES[stage.value](plan)
        print(f"{stage.value}: {time.monotonic() - start:.0f} s", flush=True)


if __name__ == "__main__":
    typer.run(main)
