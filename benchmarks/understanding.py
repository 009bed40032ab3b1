"""How well requests are read: the local thinker on labelled prompts in English and Chinese, and what it costs.

    python benchmarks/understanding.py [--data DIR] [--write] [--json]

prints how many of the odd prompts of `tests/prompts_odd.py` are read as labelled; how many turns of conversations are,
of those that the words of turns were fitted to, of those that nothing was fitted to, and, leaving out the turns about
one picture at a time, of those that the reader is fitted to; and milliseconds a prompt on one core. With
`DIR/prompts/unigenbench_dev.csv` (UniGenBench, CC BY 4.0) also, for all prompts and for those of odd ids: F1 of finding
that there is text to render and that a style is named, the share of quoted texts taken word for word, and the accuracy
of the subject class, also by weights that were fitted to the other prompts, and with `DIR/prompts/partiprompts.tsv` of
prompts that no weights were fitted to; and how often the English and the Chinese
of one prompt go to the same expert of the default zoo. `--write` first fits the weights of the subject class to all of
these prompts, so that of its figures only the one with tenths left out says how others are read.

Labels are the data's own: "text" is its test point *Text Generation*, "style" its test point *Style*; of its subjects
Character and Anthropomorphic are `character`, Animal `animal`, Scene `scene`, and Other Entity `other`. Prompts of an
even id were looked at while the first rules were written, and those of odd ids later, when the rules of the main
subject were mended: leaving prompts out keeps weights from knowing them, and not the rules. Of PartiPrompts nine
were looked at, which one version of the rules read otherwise than the one before; two rules were mended for them.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from math import inf
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from latency import percentiles
from prompts_odd import PROMPTS, differences
from turns import COLD, MENDED, TURNS, UNSEEN

from diffusiongpt.embedding import LexicalEmbedder, SentenceEmbedder
from diffusiongpt.flow import Policy, Request, Route, Understanding
from diffusiongpt.ranking import LiveTable
from diffusiongpt.routing import Router
from diffusiongpt.understanding import (
    KindReader,
    LocalThinker,
    TurnKind,
    TurnReader,
    fit_classes,
    kind_by_words,
    language_of,
    likeliest_class,
    read_literals,
    simplified,
    turn_groups,
)
from diffusiongpt.zoo import Zoo

CLASSES = {
    "Character": "character", "Anthropomorphic": "character", "Animal": "animal", "Scene": "scene",
    "Other Entity": "other",
}  # fmt: skip
CATEGORIES = {
    "People": "character", "Animals": "animal", "Outdoor Scenes": "scene", "Indoor Scenes": "scene",
    "Vehicles": "other", "Artifacts": "other", "Food & Beverage": "other", "Produce & Plants": "other",
}  # fmt: skip
"""Categories of PartiPrompts that are a class."""

LANGUAGES = {"English": "prompt", "Chinese": "prompt_zh"}
MOST_WORDS = 64
FOLDS, SPLITS = 10, 5
CLOSE = 0.05
"""Log-odds within which two experts are as good as even: 51.2 of 100 people would prefer the one ahead."""

TARGET = Path(__file__).parents[1] / "diffusiongpt" / "understanding" / "subject_class.json"
SOURCE = "subjects of UniGenBench's development set, CC BY 4.0, https://github.com/CodeGoat24/UniGenBench"

_QUOTED = re.compile(r"[\"“‘'「]([^\"”’」\n]{2,}(?:'[a-z][^\"”’'」\n]*)?)[\"”」]|(?<!\w)['‘]([^'’\n]{2,})['’]")


def f1(pairs: Sequence[tuple[bool, bool]]) -> float:
    """F1 of pairs of what was found and what is there."""
    hits = sum(found and there for found, there in pairs)
    wrong = sum(found != there for found, there in pairs)
    return round(2 * hits / (2 * hits + wrong), 3) if hits or wrong else 1.0


def word_for_word(rows: Sequence[dict[str, str]], read: Sequence[Understanding], column: str) -> float:
    """Share of the prompts with text to render whose quoted text is read exactly."""
    cases = [
        (next(group for group in quotes[-1].groups() if group).strip(), understood.text_to_render)
        for row, understood in zip(rows, read, strict=True)
        if "Text Generation" in row["points"].split("|") and (quotes := list(_QUOTED.finditer(row[column])))
    ]
    return round(sum(text in texts for text, texts in cases) / len(cases), 3) if cases else 1.0


def scores(thinker: LocalThinker, rows: Sequence[dict[str, str]], column: str, zoo: Zoo) -> dict[str, float]:
    """The measures of one language."""
    nodes = tuple(zoo.taxonomy.nodes.values())
    read = [thinker.think(row[column], (), nodes).understanding for row in rows]
    points = [row["points"].split("|") for row in rows]
    return {
        "text_f1": f1(
            [(bool(one.text_to_render), "Text Generation" in p) for one, p in zip(read, points, strict=True)]
        ),
        "word_for_word": word_for_word(rows, read, column),
        "style_f1": f1([(bool(one.styles), "Style" in p) for one, p in zip(read, points, strict=True)]),
        "subject_class": round(
            sum(one.subject_class == CLASSES[row["subject"]] for one, row in zip(read, rows, strict=True)) / len(rows),
            3,
        ),
    }


def classes_left_out(thinker: LocalThinker, rows: Sequence[dict[str, str]], zoo: Zoo) -> dict[str, float]:
    """Share of subject classes read rightly by weights that are fitted to the other prompts, in either language."""
    nodes = tuple(zoo.taxonomy.nodes.values())
    labels = [CLASSES[row["subject"]] for row in rows]
    signs = {name: [thinker.signs_of_class(row[column], nodes) for row in rows] for name, column in LANGUAGES.items()}
    hits: dict[str, list[bool]] = {name: [] for name in LANGUAGES}
    orders = [np.random.default_rng(seed).permutation(len(rows)) for seed in range(SPLITS)]
    for fold in [one for order in orders for one in np.array_split(order, FOLDS)]:
        others = sorted(set(range(len(rows))).difference(fold.tolist()))
        fit = fit_classes([(one[place], labels[place]) for one in signs.values() for place in others])
        for name, one in signs.items():
            hits[name] += [likeliest_class(one[place], fit) == labels[place] for place in fold]
    return {name: round(sum(found) / len(found), 3) for name, found in hits.items()}


def classes_elsewhere(thinker: LocalThinker, data: Path, zoo: Zoo) -> dict[str, Any]:
    """Share of subject classes read rightly in PartiPrompts of a category that is one, which nothing was fitted to."""
    nodes = tuple(zoo.taxonomy.nodes.values())
    with (data / "prompts" / "partiprompts.tsv").open(encoding="utf-8", newline="") as file:
        labelled = [
            (row["Prompt"], CATEGORIES[row["Category"]])
            for row in csv.DictReader(file, delimiter="\t")
            if row["Category"] in CATEGORIES
        ]
    hits = [thinker.think(text, (), nodes).understanding.subject_class == label for text, label in labelled]
    return {"prompts": len(hits), "right": round(sum(hits) / len(hits), 3)}


def texts_elsewhere(data: Path) -> dict[str, dict[str, float]]:
    """Texts to render in WeGenBench, by language: prompts whose texts are found, and those read word for word.

    A prompt is read word for word if each text that was found in it is one of its label's, or a part of one.
    """
    with (data / "prompts" / "wegenbench.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    found: dict[str, dict[str, float]] = {}
    for name, language in (("English", "en"), ("Chinese", "zh")):
        read = [
            ("".join(row["text_to_render"].split()), read_literals(row["prompt"]).fields["text_to_render"])
            for row in rows
            if row["lang"] == language
        ]
        exact = [all("".join(text.split()) in label for text in texts) for label, texts in read if label and texts]
        found[name] = {
            "labelled": sum(bool(label) for label, _ in read),
            "f1": round(f1([(bool(texts), bool(label)) for label, texts in read]), 3),
            "word_for_word": round(sum(exact) / len(exact), 3),
        }
    return found


def write_classes(thinker: LocalThinker, rows: Sequence[dict[str, str]], zoo: Zoo) -> None:
    """Fit the weights of the package to all prompts."""
    nodes = tuple(zoo.taxonomy.nodes.values())
    labelled = [
        (thinker.signs_of_class(row[column], nodes), CLASSES[row["subject"]])
        for row in rows
        for column in LANGUAGES.values()
    ]
    TARGET.write_text(json.dumps({"source": SOURCE, **fit_classes(labelled)}, indent=1) + "\n", encoding="utf-8")


def same_expert(router: Router, rows: Sequence[dict[str, str]], zoo: Zoo) -> dict[str, Any]:
    """Prompts whose English choice reads Chinese: how many of them have the same choice in Chinese.

    Of those that have not, `close` is the share in which neither choice leads the other by more than `CLOSE`.
    """
    policy = Policy(memory="any")
    routes = [tuple(router.route(Request(prompt=row[column]), policy) for column in LANGUAGES.values()) for row in rows]
    pairs = [(english.expert, chinese.expert) for english, chinese in routes]
    able = [pair for pair in pairs if "zh" in zoo[pair[0]].languages]
    leads = [
        max(_lead(english, chinese.expert), _lead(chinese, english.expert))
        for english, chinese in routes
        if english.expert != chinese.expert and "zh" in zoo[english.expert].languages
    ]
    chosen = Counter(english for english, _ in pairs)
    return {
        "prompts": len(able),
        "same": round(sum(english == chinese for english, chinese in able) / max(len(able), 1), 3),
        "close": round(sum(lead <= CLOSE for lead in leads) / max(len(leads), 1), 3),
        "experts": len(chosen),
        "most_chosen": round(chosen.most_common(1)[0][1] / len(pairs), 3),
    }


def _lead(route: Route, other: str) -> float:
    """How far the chosen expert is ahead of another one, in log-odds of being preferred."""
    return route.chosen.score - next((one.score for one in route.candidates if one.expert == other), -inf)


def turns() -> dict[str, dict[str, float]]:
    """Share of turns read as they are labelled, in each language.

    Returns:
        By name and language: those that the words of turns were fitted to, those that they were mended by later,
        those that nothing was fitted to, these by words alone, the last ones that were read once, and those of the
        package by a reader that is fitted to the ones about other pictures.
    """
    read = TurnReader.installed().kind
    labelled = {
        name: [(text, kind) for kinds in table.values() for kind, texts in kinds.items() for text in texts]
        for name, table in (("fitted", TURNS), ("mended", MENDED), ("unseen", UNSEEN), ("cold", COLD))
    }
    return {
        "fitted": right((read(text), text, kind) for text, kind in labelled["fitted"]),
        "mended": right((read(text), text, kind) for text, kind in labelled["mended"]),
        "unseen": right((read(text), text, kind) for text, kind in labelled["unseen"]),
        "cold": right((read(text), text, kind) for text, kind in labelled["cold"]),
        "unseen, by words": right((kind_by_words(simplified(text)), text, kind) for text, kind in labelled["unseen"]),
        "left out": right(_left_out()),
    }


def _left_out() -> Iterator[tuple[str, str, str]]:
    """Kind, text and label of the package's turns, read by a reader that knows only those about other pictures."""
    groups = [[(kind, text) for kind, texts in group.items() for text in texts] for group in turn_groups()]
    for place, group in enumerate(groups):
        others: list[tuple[TurnKind, str]] = [one for other in groups[:place] + groups[place + 1 :] for one in other]
        reader = TurnReader(SentenceEmbedder.installed(), others)
        yield from ((reader.kind(text), text, kind) for kind, text in group)


def right(read: Iterable[tuple[str, str, str]]) -> dict[str, float]:
    """Share of readings of texts that are the label, in each language."""
    hits: dict[str, list[bool]] = {name: [] for name in LANGUAGES}
    for found, text, label in read:
        hits["Chinese" if language_of(text) == "zh" else "English"].append(found == label)
    return {name: round(sum(found) / len(found), 3) for name, found in hits.items()}


def costs(zoo: Zoo, texts: Sequence[str]) -> dict[str, dict[str, float]]:
    """Milliseconds of processor time a prompt, without and with the sentence embedder."""
    nodes, figures = tuple(zoo.taxonomy.nodes.values()), {}
    for name, sentences in (("words", None), ("sentence embedder", SentenceEmbedder.installed())):
        thinker = LocalThinker(LexicalEmbedder(), sentences)
        # each text once: what was read is kept for a moment
        median, late = percentiles(lambda text, one=thinker: one.think(text, (), nodes), list(texts), process_time)
        figures[name] = {"median": median, "p95": late}
    return figures


def read_rows(data: Path) -> list[dict[str, str]]:
    """The prompts of UniGenBench's development set."""
    with (data / "prompts" / "unigenbench_dev.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def measure(data: Path | None) -> dict[str, Any]:
    """All figures; without data those that need none."""
    zoo, thinker = Zoo.load(), LocalThinker(sentences=SentenceEmbedder.installed())
    nodes = tuple(zoo.taxonomy.nodes.values())
    odd = [differences(thinker.think(text, (), nodes).understanding, label) for _, text, label in PROMPTS]
    figures: dict[str, Any] = {"odd_prompts": {"prompts": len(odd), "right": sum(not one for one in odd)}}
    figures["turns"] = turns()
    if data is None:
        return figures | {"ms_per_prompt": costs(zoo, [text for _, text, _ in PROMPTS])}
    rows = read_rows(data)
    odd_ids = [row for row in rows if int(row["prompt_id"]) % 2]
    short = [text for row in rows for text in (row["prompt"], row["prompt_zh"]) if len(text.split()) <= MOST_WORDS]
    with tempfile.TemporaryDirectory() as folder:
        votes = LiveTable(Path(folder) / "votes.db")
        sentences = SentenceEmbedder.installed()
        kinds = KindReader(sentences) if sentences else None  # as a studio has it
        router = Router(zoo, thinker, votes, embedder="lexical", readiness=lambda _: "on_disk", kinds=kinds)
        same = same_expert(router, rows, zoo)
        votes.store.close()
    return figures | {
        "prompts": len(rows),
        "all": {name: scores(thinker, rows, column, zoo) for name, column in LANGUAGES.items()},
        "odd_ids": {name: scores(thinker, odd_ids, column, zoo) for name, column in LANGUAGES.items()},
        "class_elsewhere": classes_elsewhere(thinker, data, zoo),
        "texts_elsewhere": texts_elsewhere(data),
        "class_left_out": classes_left_out(thinker, rows, zoo),
        "same_expert": same,
        "ms_per_prompt": costs(zoo, short),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with prompts/unigenbench_dev.csv")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--write", action="store_true", help="fit the weights of the subject's class first")
    arguments = parser.parse_args()
    if arguments.write:
        thinker = LocalThinker(sentences=SentenceEmbedder.installed())
        write_classes(thinker, read_rows(arguments.data), Zoo.load())
    figures = measure(arguments.data)
    if arguments.json:
        print(json.dumps(figures, indent=2))
        return
    if arguments.data:
        _print_table(figures)
    for name, shares in figures["turns"].items():
        print(f"{'turns ' + name:<31}" + "".join(f"{shares[one]:>9.3f}" for one in LANGUAGES))
    for name in ("odd_prompts", "texts_elsewhere", "class_elsewhere", "same_expert", "ms_per_prompt"):
        if name in figures:
            print(f"{name:<31}{figures[name]}")


def _print_table(figures: dict[str, Any]) -> None:
    columns = "".join(f"{name:>9}" for name in LANGUAGES)
    title = f"{figures['prompts']} prompts"
    print(f"{title:<31}{columns}{'odd ids:':>11}{columns}")
    for name in figures["all"]["English"]:
        halves = ["".join(f"{figures[half][one][name]:>9.3f}" for one in LANGUAGES) for half in ("all", "odd_ids")]
        print(f"{name:<31}{halves[0]}{'':>11}{halves[1]}")
    left_out = "".join(f"{figures['class_left_out'][one]:>9.3f}" for one in LANGUAGES)
    print(f"{'subject_class, tenths left out':<31}{left_out}")


if __name__ == "__main__":
    main()
