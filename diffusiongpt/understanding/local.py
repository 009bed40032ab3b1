"""The local thinker: reads English and Chinese prompts by lexicon and embedding, without an LLM or a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from diffusiongpt.embedding.lexical import Embedder, LexicalEmbedder, Vectors
from diffusiongpt.embedding.sentence import SentenceEmbedder, can_read
from diffusiongpt.flow.understanding import NodeWeight, SubjectClass, Understanding
from diffusiongpt.understanding.lexicon import Lexicon, Mention, weights
from diffusiongpt.understanding.literal import read_literals
from diffusiongpt.understanding.thinker import Thought
from diffusiongpt.understanding.wording import read_wording
from diffusiongpt.zoo.expert import ROOT
from diffusiongpt.zoo.taxonomy import Node, NodeKind

NAMED = 0.95
"""Probability that a prompt belongs to a style that it names; the rest is for names used in another sense."""

LIKE = 0.7
"""The same for words that are only similar to a name of the style."""

SUBJECT_PRIOR = 0.1
"""Weight of every subject before the prompt is read; a subject that is named has 1."""

IMPLIED = 0.35
"""Cosine similarity from which the nearest subject counts for a prompt that names none: 97 of 200 such PartiPrompts
reach it, and 76 % of those are right (`benchmarks/routing.py --data`)."""

IMPLIED_WEIGHT = 0.5
"""Weight of such a subject, whose probability becomes .6; a named one has weight 1."""

ANCHORS = 10
"""Number of names that represent a subject; more are slower and not more accurate."""

_CLASSES: dict[str, SubjectClass] = {"character": "character", "animal": "animal", "scene": "scene"}


class LocalThinker:
    """Reads a prompt by its words; if these name no subject, a sentence embedder may find one by meaning.

    Args:
        embedder: Embedder that finds misspellings.
        sentences: Embedder that finds the subject of a prompt that names none; used only for scripts it reads.
    """

    def __init__(self, embedder: Embedder | None = None, sentences: SentenceEmbedder | None = None) -> None:
        self.embedder = embedder or LexicalEmbedder()
        self._implied = ImpliedSubjects(sentences) if sentences else None
        self._lexicons: dict[tuple[str, ...], Lexicon] = {}

    def think(self, prompt: str, history: Sequence[str], nodes: Sequence[Node]) -> Thought:  # noqa: ARG002 - a lexicon has no use for earlier prompts
        """Read a prompt; see `Thinker.think`."""
        literals = read_literals(prompt)
        paradigm, clean = read_wording(literals.prompt)
        mentions = self._mentions(literals.positive, nodes)
        styles = _styles(mentions, nodes)
        subjects = _subjects(mentions, nodes)
        named = [node for node, p in subjects.items() if p > 2 * SUBJECT_PRIOR]
        asked = self._implied if not named and can_read(literals.positive) else None
        if asked:
            subjects = _subjects([*mentions, *asked.mentions(literals.positive, nodes)], nodes)
        understanding = Understanding(
            paradigm=paradigm,
            prompt=clean or prompt.strip(),
            subjects=_weights({node: subjects[node] for node in named}),
            styles=_weights(styles),
            evidence={**subjects, **styles, ROOT: round(1 - sum(styles.values()), 6)},
            subject_class=_CLASSES.get(max(named, key=lambda node: subjects[node]), "other") if named else "other",
            **literals.fields,
        )
        matched = {mention.node: mention.words for mention in reversed(mentions)}
        return Thought(
            understanding=understanding,
            values={**subjects, **styles},
            matched=matched,
            thinker="local",
            embedder=asked.embedder.name if asked else self.embedder.name,
        )

    def _mentions(self, text: str, nodes: Sequence[Node]) -> list[Mention]:
        """What the text names; misspellings are searched for only if no style matches exactly."""
        lexicon, styles = self._lexicon(nodes), _of_kind("style", nodes)
        mentions = lexicon.mentions(text)
        if any(mention.node in styles for mention in mentions):
            return mentions
        return mentions + [mention for mention in lexicon.likenesses(text) if mention.node in styles]

    def _lexicon(self, nodes: Sequence[Node]) -> Lexicon:
        key = tuple(node.id for node in nodes)
        if key not in self._lexicons:
            self._lexicons[key] = Lexicon(nodes, self.embedder)
        return self._lexicons[key]


class ImpliedSubjects:
    """Finds the subject whose names are nearest to a prompt in meaning.

    Args:
        embedder: Embedder of prompts and names.
    """

    def __init__(self, embedder: SentenceEmbedder) -> None:
        self.embedder = embedder
        self._known: dict[tuple[str, ...], tuple[list[str], Vectors]] = {}

    def mentions(self, text: str, nodes: Sequence[Node]) -> list[Mention]:
        """The nearest subject if it is near enough: not named in the text, but likely meant."""
        owners, vectors = self._subjects(nodes)
        cosines = vectors @ self.embedder.embed([text])[0]
        best = int(cosines.argmax()) if owners else 0
        if not owners or cosines[best] < IMPLIED:
            return []
        return [Mention(node=owners[best], words="", weight=IMPLIED_WEIGHT)]

    def _subjects(self, nodes: Sequence[Node]) -> tuple[list[str], Vectors]:
        key = tuple(node.id for node in nodes)
        if key not in self._known:
            subjects = _of_kind("subject", nodes).values()
            readable = [
                (node.id, name)
                for node in subjects
                for name in (node.description, *[alias for alias in node.aliases if can_read(alias)][:ANCHORS])
                if can_read(name)
            ]
            vectors = self.embedder.embed([name for _, name in readable])
            self._known[key] = [owner for owner, _ in readable], vectors
        return self._known[key]


def _styles(mentions: Sequence[Mention], nodes: Sequence[Node]) -> dict[str, float]:
    found = weights(mentions, _of_kind("style", nodes))
    sure = NAMED if max(found.values(), default=0.0) == 1 else LIKE
    total = sum(found.values())
    return {node: sure * weight / total for node, weight in found.items()}


def _subjects(mentions: Sequence[Mention], nodes: Sequence[Node]) -> dict[str, float]:
    of_kind = _of_kind("subject", nodes)
    found = weights(mentions, of_kind)
    total = sum(SUBJECT_PRIOR + found.get(node, 0.0) for node in of_kind)
    return {node: (SUBJECT_PRIOR + found.get(node, 0.0)) / total for node in of_kind}


def _of_kind(kind: NodeKind, nodes: Sequence[Node]) -> Mapping[str, Node]:
    return {node.id: node for node in nodes if node.kind == kind}


def _weights(values: Mapping[str, float]) -> tuple[NodeWeight, ...]:
    ordered = sorted(values.items(), key=lambda item: -item[1])
    return tuple(NodeWeight(node=node, p=round(p, 6)) for node, p in ordered)
