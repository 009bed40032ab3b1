"""What a decision costs, and what the command line costs before it does anything.

    python benchmarks/latency.py [--data DIR]

prints the CPU time of a warm local decision by a studio, with placements on a device of 24 GB, for prompts of 4 to 64
words in English and Chinese, among all experts and among 60 of them; next to it that of reading their meaning, which is
most of it, and of embedding them by words only; and `diffusiongpt --help` next to a bare interpreter, all in one run.
With a folder of data, also the same among 60 experts for the prompts of PartiPrompts
(https://github.com/google-research/parti, Apache-2.0), which people wrote.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from time import perf_counter, process_time

import numpy as np

from diffusiongpt import DiffusionGPT
from diffusiongpt.embedding import LexicalEmbedder, SentenceEmbedder
from diffusiongpt.zoo import Zoo

FEWER = 60
"""Experts of the smaller zoo, every so many-th of the larger one."""

_ENGLISH = str.split(
    "a quiet harbour at dawn with fishing boats, soft mist over the water and gulls above the pier "
    "oil painting watercolour anime pixel art photo of an old man reading a letter under a lamp in a narrow room "
    "cinematic light golden hour detailed texture of wood and stone reflections in puddles after the rain"
)
_CHINESE = "清晨的港口停着渔船薄雾笼罩水面海鸥飞过码头水彩画油画风格老人在灯下读信窗外下着雨石板路上有倒影金色的光"


def prompts(number: int, seed: int = 0) -> list[str]:
    """Prompts of 4 to 64 words, every second one Chinese."""
    rng = Random(seed)
    english = (" ".join(rng.choices(_ENGLISH, k=rng.randint(4, 64))) for _ in range(number))
    chinese = ("".join(rng.choices(_CHINESE, k=rng.randint(4, 64))) for _ in range(number))
    return [text for pair in zip(english, chinese, strict=True) for text in pair][:number]


def prompts_of_people(data: Path, number: int) -> list[str]:
    """Prompts of PartiPrompts, from all of its categories."""
    with (data / "prompts" / "partiprompts.tsv").open(encoding="utf-8", newline="") as file:
        texts = [row["Prompt"] for row in csv.DictReader(file, delimiter="\t")]
    return texts[:: max(len(texts) // number, 1)][:number]


def some_of(zoo: Zoo, number: int) -> Zoo:
    """A zoo of so many of the experts, spread over the whole."""
    experts = [*zoo.values()]
    kept = [experts[index * len(experts) // number] for index in range(number)]
    taxonomy = zoo.taxonomy
    return Zoo({one.id: one for one in kept}, {**taxonomy.nodes, **taxonomy.needs, **taxonomy.edits}, zoo.sources)


def decisions(zoo: Zoo, texts: list[str]) -> dict[str, float]:
    """Median and 95th percentile of the milliseconds of processor time that a studio takes to decide."""
    with DiffusionGPT(zoo) as studio:
        median, late = percentiles(lambda text: studio.route(text, memory="24GB+64GB"), texts, process_time)
    return {"median": median, "p95": late}


def percentiles(
    work: Callable[[str], object], texts: list[str], clock: Callable[[], float] = perf_counter
) -> tuple[float, float]:
    """Median and 95th percentile of the milliseconds a call takes by a clock, after a warm-up."""
    for text in texts[:20]:
        work(text)
    times = []
    for text in texts:
        start = clock()
        work(text)
        times.append((clock() - start) * 1000)
    median, late = np.percentile(times, [50, 95])
    return round(float(median), 3), round(float(late), 3)


def fastest(command: list[str], runs: int) -> float:
    """Seconds of the fastest of several runs of a command."""
    times = []
    for _ in range(runs):
        start = perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        times.append(perf_counter() - start)
    return min(times)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=1000)
    parser.add_argument("--data", type=Path, help="folder with prompts/partiprompts.tsv")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    texts, embedder = prompts(arguments.prompts), LexicalEmbedder()
    zoo = Zoo.load()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["DIFFUSIONGPT_HOME"] = os.environ["HF_HOME"] = folder
        decide = decisions(zoo, texts)
        fewer = {f"decision_ms_of_{FEWER}_experts": decisions(some_of(zoo, FEWER), texts)}
        if arguments.data:
            written = prompts_of_people(arguments.data, arguments.prompts)
            fewer[f"decision_ms_of_{FEWER}_experts_partiprompts"] = decisions(some_of(zoo, FEWER), written)
    embed = percentiles(lambda text: embedder.embed([text]), texts, process_time)
    sentences = SentenceEmbedder.installed()
    # one more character, because the last prompts are remembered
    mean = percentiles(lambda text: sentences.embed([f"{text}."]), texts, process_time) if sentences else (0.0, 0.0)
    bare = fastest([sys.executable, "-I", "-c", "pass"], 10)
    help_ = fastest([sys.executable, "-m", "diffusiongpt", "--help"], 10)
    figures = {
        "experts": len(zoo),
        "nodes": len(zoo.taxonomy.nodes),
        "decision_ms": decide,
        **fewer,
        "of_it_reading_the_meaning_ms": {"median": mean[0], "p95": mean[1]},
        "embedding_by_words_ms": {"median": embed[0], "p95": embed[1]},
        "decision_against_embedding": round(decide["median"] / embed[0], 1),
        "help_ms": round(help_ * 1000),
        "bare_interpreter_ms": round(bare * 1000),
        "help_against_bare_interpreter": round(help_ / bare, 1),
    }
    lines = (f"{name.replace('_', ' '):<46} {value}" for name, value in figures.items())
    print(json.dumps(figures, indent=2) if arguments.json else "\n".join(lines))


if __name__ == "__main__":
    main()
