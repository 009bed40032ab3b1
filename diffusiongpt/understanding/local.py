"""The local thinker: reads prompts by the words of the taxonomy, then by meaning, with no LLM and no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from diffusiongpt.embedding import Embedder, LexicalEmbedder, SentenceEmbedder, can_read
from diffusiongpt.flow import Emphasis, NodeWeight, Understanding
from diffusiongpt.understanding.lexicon import Lexicon, Mention, tokens_of, weights
from diffusiongpt.understanding.literal import Literals, read_literals
from diffusiongpt.understanding.main_subject import class_of, counted_class, weigh_subjects
from diffusiongpt.understanding.meaning import Meaning, is_other_language
from diffusiongpt.understanding.styles import other_style
from diffusiongpt.understanding.subject_class import likeliest_class, signs_of
from diffusiongpt.understanding.thinker import Thought
from diffusiongpt.understanding.wording import read_wording
from diffusiongpt.zoo import ROOT, Node, NodeKind

NAMED = 0.95
"""Probability that a prompt belongs to a style that it names; the rest is for names used in another sense."""

LIKE = 0.7
"""The same for words that are only similar to a name of the style, in spelling or in meaning."""

SUBJECT_PRIOR = 0.1
"""Weight of every subject before the prompt is read; a subject that is named has 1."""

OTHER_STYLE = "other_style"
"""Node of a style that the text names and the taxonomy has no words for."""

IMPLIED_WEIGHT = 0.5
"""Weight of a subject that is found by meaning, whose probability becomes .6; a named one has weight 1."""


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
        found = self._find(prompt, nodes)
        literals, styles, subjects = found.literals, found.styles, found.subjects
        paradigm, clean = read_wording(literals.prompt)
        if literals.fields["edit"]:  # without its verb an order to change something says nothing
            clean = literals.prompt
        stated = [
            node for node, p in _subjects(found.about, nodes).items() if p > SUBJECT_PRIOR and _names(found.about, node)
        ]
        understanding = Understanding(
            paradigm=paradigm,
            prompt=clean or prompt.strip(),
            subjects=_weights({node: subjects[node] for node in stated}),
            styles=_weights(styles),
            unwanted=_unwanted(self._readers(nodes)[0], literals.denied, styles, nodes),
            evidence={**subjects, **styles, ROOT: round(1 - sum(styles.values()), 6)},
            subject_class=likeliest_class(found.signs()),
            **literals.fields,
        )
        return Thought(
            understanding=understanding,
            values={**subjects, **styles},
            matched={mention.node: mention.words for mention in reversed(found.named)},
            thinker="local",
            embedder=self._sentences.name if self._sentences and found.asked else self.embedder.name,
        )

    def signs_of_class(self, prompt: str, nodes: Sequence[Node]) -> dict[str, float]:
        """What speaks for the class of a prompt's subject, to fit the weights of these signs."""
        return self._find(prompt, nodes).signs()

    def _find(self, prompt: str, nodes: Sequence[Node]) -> _Found:
        literals = read_literals(prompt)
        lexicon, meaning = self._readers(nodes)
        tokens = tokens_of(literals.positive)
        named = _mentions(lexicon, tokens, literals.positive, nodes)
        named = _emphasised(named, literals.fields["markup"].emphasis)
        meant, asked = _meant(meaning, literals.positive, named, nodes)
        about = _about(tokens, named, nodes)
        return _Found(
            literals=literals,
            tokens=tokens,
            named=named,
            about=about,
            meant=meant,
            asked=asked,
            styles=_styles([*named, *meant], nodes),
            subjects=_subjects([*about, *meant], nodes),
        )

    def _readers(self, nodes: Sequence[Node]) -> tuple[Lexicon, Meaning | None]:
        """What reads prompts by the words of these nodes and, if there is a sentence embedder, by their meaning."""
        key = tuple(node.id for node in nodes)
        if key not in self._known:
            meaning = Meaning(self._sentences, nodes) if self._sentences else None
            self._known[key] = Lexicon(nodes, self.embedder), meaning
        return self._known[key]


@dataclass(frozen=True, kw_only=True)
class _Found:
    """What a prompt says literally, and the nodes that it names or means.

    Attributes:
        literals: Its literal facts.
        tokens: The tokens of the text that is to be interpreted.
        named: Mentions of nodes.
        about: Those of subjects, weighted by how much the picture is about them.
        meant: The subject and the style that are found by meaning alone.
        asked: Whether the sentence embedder was asked.
        styles: Probability by style.
        subjects: Probability by subject.
    """

    literals: Literals
    tokens: Sequence[str]
    named: Sequence[Mention]
    about: Sequence[Mention]
    meant: Sequence[Mention]
    asked: bool
    styles: Mapping[str, float]
    subjects: Mapping[str, float]

    def signs(self) -> dict[str, float]:
        """What speaks for the class of the subject."""
        guess = next((one.node for one in self.meant), None)
        by_rule = class_of(self.tokens, self.about, [one.weight for one in self.about], guess)
        text, counted = self.literals.positive, counted_class(self.tokens)
        return signs_of(text, self.about, self.subjects, by_rule=by_rule, counted=counted)


def _mentions(lexicon: Lexicon, tokens: Sequence[str], text: str, nodes: Sequence[Node]) -> list[Mention]:
    """What the text names; misspellings, and styles outside the taxonomy, are looked for only if no style matches."""
    styles = _of_kind("style", nodes)
    mentions = lexicon.mentions_in(tokens)
    if any(mention.node in styles for mention in mentions):
        return mentions
    alike = [mention for mention in lexicon.likenesses(text) if mention.node in styles]
    if not alike and OTHER_STYLE in styles and (words := other_style(text)):
        alike = [Mention(node=OTHER_STYLE, words=words, weight=LIKE)]
    return mentions + alike


def _emphasised(mentions: Sequence[Mention], emphasis: Sequence[Emphasis]) -> list[Mention]:
    """Mentions with the weights that the prompt gives their words."""
    if not emphasis:
        return list(mentions)
    strength = {token: one.weight for one in emphasis for token in tokens_of(one.words)}
    return [replace(one, weight=one.weight * strength.get(tokens_of(one.words)[0], 1.0)) for one in mentions]


def _about(tokens: Sequence[str], mentions: Sequence[Mention], nodes: Sequence[Node]) -> list[Mention]:
    """Mentions of subjects, weighted by how much the picture is about them."""
    named = [mention for mention in mentions if mention.node in _of_kind("subject", nodes)]
    roles = weigh_subjects(tokens, named)
    return [replace(one, weight=min(one.weight, 1.0) * role) for one, role in zip(named, roles, strict=True)]


def _names(mentions: Sequence[Mention], node: str) -> bool:
    return any(mention.node == node for mention in mentions)


def _unwanted(
    lexicon: Lexicon, denied: Sequence[str], styles: Mapping[str, float], nodes: Sequence[Node]
) -> tuple[str, ...]:
    """Styles that the text denies and does not ask for elsewhere; "without a hat" denies no kind of subject."""
    known = _of_kind("style", nodes)
    found = dict.fromkeys(mention.node for text in denied for mention in lexicon.mentions(text))
    return tuple(node for node in found if node in known and node not in styles)


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
    sure = NAMED if max(found.values(), default=0.0) >= 1 else LIKE
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
