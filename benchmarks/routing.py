"""Sixty prompts that name a style, half Chinese; what a decision costs; and ten thousand experts.

    python benchmarks/routing.py [--data DIR]

prints who is chosen from the default zoo, how often styles and subjects are found in languages that the taxonomy has no
words for, processor time of a warm decision with and without the sentence embedder, and for 100 and 10,000 synthetic
experts how many are scored, whether the pick is that of scoring all, and what it costs. If `semantic-router`
(aurelio-labs) is installed it is given the same nodes, their names and descriptions as utterances, and the same
embedders. With PartiPrompts in `DIR/prompts/partiprompts.tsv`: how often the subject is found that a prompt is about,
and how often a style is seen where none is named.
"""

from __future__ import annotations

import argparse
import csv
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from time import process_time

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from latency import percentiles, prompts
from prompts_languages import PROMPTS as IN_OTHER_LANGUAGES
from prompts_styled import CHINESE, ENGLISH, PROMPTS
from synthetic_zoo import synthetic_votes, synthetic_zoo

from diffusiongpt.embedding import Embedder, LexicalEmbedder, SentenceEmbedder
from diffusiongpt.flow import Request, Route
from diffusiongpt.ranking import LiveTable
from diffusiongpt.routing import Router
from diffusiongpt.understanding import LocalThinker, Meaning
from diffusiongpt.zoo import Node, Zoo

SUBJECT_OF = {
    "Animals": "animal", "People": "character", "Outdoor Scenes": "scene", "Indoor Scenes": "scene",
    "Food & Beverage": "object", "Vehicles": "object", "Artifacts": "object", "Produce & Plants": "object",
}  # fmt: skip
"""Categories of PartiPrompts that speak about one of our subjects."""

UNNAMED = ("a cat on a sofa", "a red bicycle", "two children playing chess", "一只狐狸", "a lighthouse at night")


def router_of(zoo: Zoo, sentences: SentenceEmbedder | None = None) -> Router:
    """A router with an empty vote store."""
    votes = LiveTable(Path(tempfile.mkdtemp()) / "votes.db")
    thinker = LocalThinker(LexicalEmbedder(), sentences)
    return Router(zoo, thinker, votes, embedder="lexical", readiness=lambda _: "on_disk")


def best_of_all(router: Router, route: Route) -> str:
    """The expert that scoring every one of them would choose."""
    order = {expert: index for index, expert in enumerate(router.zoo)}
    scores = router.table().score(list(router.zoo), route.understanding.evidence, route.input)
    return min(scores, key=lambda score: (-round(score.mean, 9), order[score.expert])).expert


def fits(zoo: Zoo, router: Router, style: str, route: Route) -> str:
    """`tag` if the chosen expert has the style, `untagged` if none has, `published` if it outranks all."""
    if style in zoo[route.expert].tags.styles:
        return "tag"
    out = {rejection.expert for rejection in route.rejected}
    carriers = [one for one in zoo if style in zoo[one].tags.styles and one not in out]
    scores = router.table().score([route.expert, *carriers], route.understanding.evidence, route.input)
    if not carriers:
        return "untagged"
    return "published" if all(scores[0].mean > score.mean for score in scores[1:]) else "no"


def styled() -> None:
    """Print the experts that draw the sixty prompts."""
    zoo = Zoo.load("default")
    router = router_of(zoo)
    routes = [(style, router.route(Request(prompt=prompt))) for prompt, style in PROMPTS]
    verdicts = Counter(fits(zoo, router, style, route) for style, route in routes)
    chosen = Counter(route.expert for _, route in routes)
    most, times = chosen.most_common(1)[0]
    print(f"{len(PROMPTS)} prompts that name a style, {len(CHINESE)} of them Chinese; {len(zoo)} experts")
    print(f"  expert carries the style's tag                {verdicts['tag'] / len(routes):6.1%}")
    print(f"  or outranks those that do by published votes  {verdicts['published'] / len(routes):6.1%}")
    print(f"  no expert carries it, published votes decide {verdicts['untagged'] / len(routes):6.1%}")
    print(f"  none of these                                 {verdicts['no'] / len(routes):6.1%}")
    print(f"  different experts {len(chosen)}; most often {most}, {times / len(routes):.0%}")


def named_styles(sentences: SentenceEmbedder | None) -> None:
    """How often the style is identified correctly, next to semantic-router."""
    zoo = Zoo.load("default")
    router = router_of(zoo, sentences)

    def ours(prompt: str) -> str | None:
        styles = router.route(Request(prompt=prompt)).understanding.styles
        return styles[0].node if styles else None

    print("style identified correctly, English / Chinese; ms per prompt, median / p95")
    _print_named("ours, whole decision", ours)
    for embedder in (LexicalEmbedder(), sentences):
        if embedder is not None and find_spec("semantic_router"):
            _print_named(f"semantic-router, {embedder.name}", semantic_router(zoo, embedder))
    if not find_spec("semantic_router"):
        print("  semantic-router is not installed")


def _print_named(title: str, work: Callable[[str], str | None]) -> None:
    english, chinese = (sum(work(prompt) == style for prompt, style in part) / len(part) for part in (ENGLISH, CHINESE))
    median, late = percentiles(work, [prompt for prompt, _ in PROMPTS])
    print(f"  {title:<36} {english:4.0%} / {chinese:4.0%}   {median:6.2f} / {late:6.2f}")


def semantic_router(zoo: Zoo, embedder: Embedder) -> Callable[[str], str | None]:
    """aurelio-labs' router over the styles of a zoo."""
    from semantic_router import IndexedRouter
    from semantic_router import Route as Utterances
    from semantic_router.encoders import DenseEncoder

    class Encoder(DenseEncoder):
        def __call__(self, docs: list[str]) -> list[list[float]]:
            return [row.tolist() for row in embedder.embed(docs)]

    routes = [
        Utterances(name=node.id, utterances=[*node.aliases, *node.label.values(), node.description])
        for node in zoo.taxonomy.of_kind("style")
    ]
    router = IndexedRouter(encoder=Encoder(name=embedder.name), routes=routes)
    return lambda prompt: router(prompt).name


def latency(sentences: SentenceEmbedder | None) -> None:
    """CPU time of a warm decision among forty experts of the default zoo; other work on the machine adds nothing."""
    whole = Zoo.load("default")
    zoo = Zoo(dict(islice(whole.items(), 40)), whole.taxonomy.nodes, ("forty",))
    texts = prompts(300)
    print(f"warm decision, {len(zoo)} experts, prompts of 4 to 64 words, ms of CPU time, median / p95")
    for title, embedder in (("lexical", None), ("with the sentence embedder", sentences)):
        if title == "lexical" or embedder is not None:
            router = router_of(zoo, embedder)
            median, late = percentiles(
                lambda text, router=router: router.route(Request(prompt=text)), texts, process_time
            )
            print(f"  {title:<28} {median:6.2f} / {late:6.2f}")
    if sentences is None:
        return
    # a prompt that names no subject always goes through the model; such words are two or three tokens each
    garbled = (
        " ".join(text.split()[:24]).translate(str.maketrans("aeiou", "uoiea")) for text in texts if text.isascii()
    )
    unknown = list(garbled)
    median, late = percentiles(lambda text: router.route(Request(prompt=text)), unknown, process_time)
    print(f"  {'all of them embedded':<28} {median:6.2f} / {late:6.2f}")


def scale(votes: int) -> None:
    """Share of experts scored, same pick, and cost, at 100 and 10,000."""
    texts = [*(prompt for prompt, _ in PROMPTS), *UNNAMED]
    print(f"synthetic experts, {votes} votes, {len(texts)} prompts; ms median / p95")
    costs: list[tuple[float, float]] = []
    for size in (100, 10_000):
        router = router_of(synthetic_zoo(size))
        for vote in synthetic_votes(router.zoo, votes):
            router.preferences.record(vote)
        routes = [router.route(Request(prompt=text)) for text in texts]
        scored = np.mean([len(route.candidates) / size for route in routes])
        same = np.mean([best_of_all(router, route) == route.expert for route in routes])
        costs.append(percentiles(lambda text, router=router: router.route(Request(prompt=text)), texts, process_time))
        median, late = costs[-1]
        print(f"  {size:>6} experts  scored {scored:6.2%}  same pick {same:6.1%}   {median:6.2f} / {late:6.2f}")
    (few_median, few_late), (many_median, many_late) = costs
    print(f"  10,000 against 100: {many_median / few_median:.1f} times the median, {many_late / few_late:.1f} the p95")


def subjects(file: Path, sentences: SentenceEmbedder | None) -> None:
    """How often the most probable subject is that of the PartiPrompts category."""
    with file.open(encoding="utf-8") as lines:
        rows = [(row["Prompt"], row["Category"]) for row in csv.DictReader(lines, delimiter="\t")]
    known = [(prompt, SUBJECT_OF[category]) for prompt, category in rows if category in SUBJECT_OF]
    nodes = tuple(Zoo.load("tiny").taxonomy.nodes.values())
    plain = LocalThinker()
    unnamed = [(p, s) for p, s in known if not plain.think(p, (), nodes).understanding.subjects]
    print(f"PartiPrompts: {len(known)} about one of our subjects, {len(unnamed)} of them name none")
    if sentences is None:
        return
    thinker = LocalThinker(None, sentences)
    guesses = [(_most_likely(thinker, prompt, nodes), subject) for prompt, subject in unnamed]
    believed = [(guess, subject) for guess, subject in guesses if guess]
    right = sum(guess == subject for guess, subject in believed)
    print(f"  {sentences.name} assigns a subject to {len(believed)}, and is right for {right / len(believed):.0%}")
    styleless = [prompt for prompt, _ in rows if not plain.think(prompt, (), nodes).understanding.styles]
    meaning = Meaning(sentences, nodes)
    wrong = sum(meaning.style(prompt) is not None for prompt in styleless)
    print(f"  of {len(styleless)} that name no style, it finds a style in {wrong / len(styleless):.1%}")


def other_languages(sentences: SentenceEmbedder | None) -> None:
    """Styles and subjects of prompts in languages that the taxonomy has no words for, by words and by meaning."""
    nodes = tuple(Zoo.load("tiny").taxonomy.nodes.values())
    styled = sum(style is not None for *_, style in IN_OTHER_LANGUAGES)
    print(f"other languages: {len(IN_OTHER_LANGUAGES)} prompts, {styled} of them name a style")
    for title, embedder in (("words alone", None), ("with the sentence embedder", sentences)):
        thinker = LocalThinker(None, embedder)
        thoughts = [thinker.think(prompt, (), nodes) for prompt, *_ in IN_OTHER_LANGUAGES]
        styles = [thought.understanding.styles for thought in thoughts]
        found = [(one[0].node, style) for one, (*_, style) in zip(styles, IN_OTHER_LANGUAGES, strict=True) if one]
        subjects = [
            (guess, subject)
            for prompt, subject, _ in IN_OTHER_LANGUAGES
            if (guess := _most_likely(thinker, prompt, nodes))
        ]
        print(f"  {title:<28} styles: {_rightly(found)}; subjects: {_rightly(subjects)}")


def _rightly(pairs: Sequence[tuple[str, str | None]]) -> str:
    return f"{len(pairs)} found, {sum(one == other for one, other in pairs)} of them correctly"


def _most_likely(thinker: LocalThinker, prompt: str, nodes: Sequence[Node]) -> str | None:
    values = thinker.think(prompt, (), nodes).values
    subjects = {node.id: values[node.id] for node in nodes if node.kind == "subject"}
    best = max(subjects, key=lambda node: subjects[node])
    return best if subjects[best] > min(subjects.values()) else None


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with prompts/partiprompts.tsv")
    arguments = parser.parse_args()
    sentences = SentenceEmbedder.installed()
    styled()
    named_styles(sentences)
    other_languages(sentences)
    latency(sentences)
    for votes in (0, 300):
        scale(votes)
    if arguments.data:
        subjects(arguments.data / "prompts" / "partiprompts.tsv", sentences)


if __name__ == "__main__":
    main()
