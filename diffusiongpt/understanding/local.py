"""The local thinker: reads prompts by the words of the taxonomy, then by meaning, with no LLM and no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from diffusiongpt.embedding import Embedder, LexicalEmbedder, SentenceEmbedder, can_read
from diffusiongpt.flow import NodeWeight, SubjectClass, Understanding
from diffusiongpt.understanding.lexicon import Lexicon, Mention, weights
from diffusiongpt.understanding.literal import read_literals, read_wording
from diffusiongpt.understanding.meaning import Meaning, is_other_language
from diffusiongpt.understanding.thinker import Thought
from diffusiongpt.zoo import ROOT, Node, NodeKind

NAMED = 0.95
"""Probability that a prompt belongs to a style that it names; the rest is for names used in another sense."""

LIKE = 0.7
"""The same for words that are only similar to a name of the style, in spelling or in meaning."""

SUBJECT_PRIOR = 0.1
"""Weight of every subject before the prompt is read; a subject that is named has 1."""

IMPLIED_WEIGHT = 0.5
"""Weight of a subject that is found by meaning, whose probability becomes .6; a named one has weight 1."""

_CLASSES: dict[str, SubjectClass] = {"character": "character", "animal": "animal", "scene": "scene"}


class LocalThinker:
    """Reads a prompt by its words; what these leave open, a sentence embedder may find by meaning.

    Args:
        embedder: Embedder that finds misspellings.
        sentences: Embedder that finds the subject of a prompt that names none, and its style in languages that the
            taxonomy has no words for; used only for scripts it reads.
    """

    def __init__(self, embedder: Embedder | None = None, sentences: SentenceEmbedder | None = None) -> None:
        self.embedder = embedder or LexicalEmbedder()
        self._sentences = sentences
        self._known: dict[tuple[str, ...], tuple[Lexicon, Meaning | None]] = {}

    def think(self, prompt: str, history: Sequence[str], nodes: Sequence[Node]) -> Thought:  # noqa: ARG002 - a lexicon has no use for earlier prompts
        """Read a prompt; see `Thinker.think`."""
        literals = read_literals(prompt)
        paradigm, clean = read_wording(literals.prompt)
        lexicon, meaning = self._readers(nodes)
        named = _mentions(lexicon, literals.positive, nodes)
        meant, asked = _meant(meaning, literals.positive, named, nodes)
        styles = _styles([*named, *meant], nodes)
        subjects = _subjects([*named, *meant], nodes)
        stated = [node for node, p in _subjects(named, nodes).items() if p > 2 * SUBJECT_PRIOR]
        understanding = Understanding(
            paradigm=paradigm,
            prompt=clean or prompt.strip(),
            subjects=_weights({node: subjects[node] for node in stated}),
            styles=_weights(styles),
            evidence={**subjects, **styles, ROOT: round(1 - sum(styles.values()), 6)},
            subject_class=_CLASSES.get(max(stated, key=lambda node: subjects[node]), "other") if stated else "other",
            **literals.fields,
        )
        return Thought(
            understanding=understanding,
            values={**subjects, **styles},
            matched={mention.node: mention.words for mention in reversed(named)},
            thinker="local",
            embedder=self._sentences.name if self._sentences and asked else self.embedder.name,
        )

    def _readers(self, nodes: Sequence[Node]) -> tuple[Lexicon, Meaning | None]:
        """What reads prompts by the words of these nodes and, if there is a sentence embedder, by their meaning."""
        key = tuple(node.id for node in nodes)
        if key not in self._known:
            meaning = Meaning(self._sentences, nodes) if self._sentences else None
            self._known[key] = Lexicon(nodes, self.embedder), meaning
        return self._known[key]


def _mentions(lexicon: Lexicon, text: str, nodes: Sequence[Node]) -> list[Mention]:
    """What the text names; misspellings are searched for only if no style matches exactly."""
    styles = _of_kind("style", nodes)
    mentions = lexicon.mentions(text)
    if any(mention.node in styles for mention in mentions):
        return mentions
    return mentions + [mention for mention in lexicon.likenesses(text) if mention.node in styles]


def _meant(
    meaning: Meaning | None, text: str, named: Sequence[Mention], nodes: Sequence[Node]
) -> tuple[list[Mention], bool]:
    """The subject and style that a text means where it names none, and whether the sentence embedder was asked."""
    subject = not weights(named, _of_kind("subject", nodes))
    style = not weights(named, _of_kind("style", nodes)) and is_other_language(text)
    if meaning is None or not (subject or style) or not can_read(text):
        return [], False
    meant = []
    if subject and (node := meaning.subject(text)):
        meant.append(Mention(node=node, words="", weight=IMPLIED_WEIGHT))
    if style and (node := meaning.style(text)):
        meant.append(Mention(node=node, words="", weight=LIKE))
    return meant, True


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
