"""The local thinker: reads English and Chinese prompts by lexicon and embedding, with no LLM and no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from diffusiongpt.embedding import Embedder, LexicalEmbedder
from diffusiongpt.request import NodeWeight, SubjectClass, Understanding
from diffusiongpt.taxonomy import ROOT, Node, NodeKind
from diffusiongpt.thinkers.base import Thought
from diffusiongpt.thinkers.lexicon import Lexicon, Mention, weights
from diffusiongpt.thinkers.literal import read_literals
from diffusiongpt.thinkers.wording import read_wording

NAMED = 0.95
"""Probability that a prompt belongs to a style it names in so many words; the rest says it was a figure of speech."""

LIKE = 0.7
"""The same for a wording that only looks like a name of the style."""

SUBJECT_PRIOR = 0.1
"""Weight that every subject has before the prompt is read; a subject that is named has 1."""

_CLASSES: dict[str, SubjectClass] = {"character": "character", "animal": "animal", "scene": "scene"}


class LocalThinker:
    """Reads a prompt by the words it holds."""

    def __init__(self, embedder: Embedder | None = None) -> None:
        self.embedder = embedder or LexicalEmbedder()
        self._lexicons: dict[tuple[str, ...], Lexicon] = {}

    def think(self, prompt: str, history: Sequence[str], nodes: Sequence[Node]) -> Thought:  # noqa: ARG002 - a lexicon has no use for what was said before
        """Read a prompt; see `Thinker.think`."""
        literals = read_literals(prompt)
        paradigm, clean = read_wording(literals.prompt)
        mentions = self._mentions(literals.positive, nodes)
        styles = _styles(mentions, nodes)
        subjects = _subjects(mentions, nodes)
        named = [node for node, p in subjects.items() if p > 2 * SUBJECT_PRIOR]
        understanding = Understanding(
            paradigm=paradigm,
            prompt=clean or prompt.strip(),
            subjects=_weights({node: subjects[node] for node in named}),
            styles=_weights(styles),
            evidence={**subjects, **styles, ROOT: round(1 - sum(styles.values()), 6)},
            subject_class=_CLASSES.get(max(named, key=lambda node: subjects[node]), "other") if named else "other",
            **literals.fields,
        )
        said = {mention.node: mention.words for mention in reversed(mentions)}
        return Thought(understanding=understanding, values={**subjects, **styles}, said=said, thinker="local")

    def _mentions(self, text: str, nodes: Sequence[Node]) -> list[Mention]:
        """What the text names; misspellings are only looked for when it names no style as it stands."""
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
