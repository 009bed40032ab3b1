"""The local thinker: reads prompts by the words of the taxonomy, then by meaning, with no LLM and no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from diffusiongpt.embedding import Embedder, LexicalEmbedder, SentenceEmbedder, can_read
from diffusiongpt.flow import Emphasis, NodeWeight, Paradigm, Understanding
from diffusiongpt.understanding.clauses import Clauses
from diffusiongpt.understanding.languages import is_other_language
from diffusiongpt.understanding.lexicon import Lexicon, Mention, tokens_of, weights
from diffusiongpt.understanding.literal import Literals, read_literals
from diffusiongpt.understanding.main_subject import class_of, counted_class, weigh_subjects
from diffusiongpt.understanding.meaning import Meaning
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
        self._known: dict[tuple[str, ...], _Readers] = {}

    def think(self, prompt: str, history: Sequence[str], nodes: Sequence[Node]) -> Thought:  # noqa: ARG002 - a lexicon has no use for earlier prompts
        """Read a prompt; see `Thinker.think`."""
        readers = self._readers(nodes)
        found = self._find(prompt, readers)
        literals, styles, subjects = found.literals, found.styles, found.subjects
        # the vocabulary is that of three languages; in others the meaning of the words stands for them
        foreign = found.meant if is_other_language(literals.positive) else ()
        said = (*found.about, *(one for one in foreign if one.node in readers.subjects))
        stated = [node for node, p in _subjects(said, readers).items() if p > SUBJECT_PRIOR and _names(said, node)]
        understanding = Understanding(
            paradigm=found.paradigm,
            prompt=found.clean,
            subjects=_weights({node: subjects[node] for node in stated}),
            styles=_weights(styles),
            unwanted=_unwanted(literals.denied, styles, readers),
            evidence={**subjects, **styles, ROOT: round(1 - sum(styles.values()), 6)},
            subject_class=likeliest_class(found.signs()),
            **literals.fields,
        )
        return Thought(
            understanding=understanding,
            values={**subjects, **styles},
            matched={mention.node: mention.words for mention in reversed(found.named)},
            thinker="local",
            embedder=self._sentences.name if self._sentences and found.clauses else self.embedder.name,
            clauses=found.clauses,
        )

    def signs_of_class(self, prompt: str, nodes: Sequence[Node]) -> dict[str, float]:
        """What speaks for the class of a prompt's subject, to fit the weights of these signs."""
        return self._find(prompt, self._readers(nodes)).signs()

    def _find(self, prompt: str, readers: _Readers) -> _Found:
        literals = read_literals(prompt)
        paradigm, clean = read_wording(literals.prompt)
        if literals.fields["edit"]:  # without its verb an order to change something says nothing
            clean = literals.prompt
        clean = clean or prompt.strip()
        tokens = tokens_of(literals.positive)
        named = _mentions(tokens, literals.positive, readers)
        named = _emphasised(named, literals.fields["markup"].emphasis)
        meant, clauses = _meant(literals.positive, clean, named, readers)
        about = _about(tokens, named, readers)
        return _Found(
            literals=literals,
            paradigm=paradigm,
            clean=clean,
            tokens=tokens,
            named=named,
            about=about,
            meant=meant,
            clauses=clauses,
            styles=_styles([*named, *meant], readers),
            subjects=_subjects([*about, *meant], readers),
        )

    def _readers(self, nodes: Sequence[Node]) -> _Readers:
        key = tuple(node.id for node in nodes)
        if key not in self._known:
            self._known[key] = _Readers(
                lexicon=Lexicon(nodes, self.embedder),
                meaning=Meaning(self._sentences, nodes) if self._sentences else None,
                subjects=_of_kind("subject", nodes),
                styles=_of_kind("style", nodes),
            )
        return self._known[key]


@dataclass(frozen=True, kw_only=True)
class _Readers:
    """What reads prompts for some nodes.

    Attributes:
        lexicon: Reads them by the words of the nodes.
        meaning: Reads them by their meaning, if there is a sentence embedder.
        subjects: The nodes that are subjects, by id.
        styles: Those that are styles.
    """

    lexicon: Lexicon
    meaning: Meaning | None
    subjects: Mapping[str, Node]
    styles: Mapping[str, Node]


@dataclass(frozen=True, kw_only=True)
class _Found:
    """What a prompt says literally, and the nodes that it names or means.

    Attributes:
        literals: Its literal facts.
        paradigm: How it asks.
        clean: What it asks for.
        tokens: The tokens of the text that is to be interpreted.
        named: Mentions of nodes.
        about: Those of subjects, weighted by how much the picture is about them.
        meant: The subject and the style that are found by meaning alone.
        clauses: What its clauses are about; `None` if the sentence embedder was not asked.
        styles: Probability by style.
        subjects: Probability by subject.
    """

    literals: Literals
    paradigm: Paradigm
    clean: str
    tokens: Sequence[str]
    named: Sequence[Mention]
    about: Sequence[Mention]
    meant: Sequence[Mention]
    clauses: Clauses | None
    styles: Mapping[str, float]
    subjects: Mapping[str, float]

    def signs(self) -> dict[str, float]:
        """What speaks for the class of the subject."""
        guess = next((one.node for one in self.meant), None)
        by_rule = class_of(self.tokens, self.about, [one.weight for one in self.about], guess)
        text, counted = self.literals.positive, counted_class(self.tokens)
        return signs_of(text, self.about, self.subjects, by_rule=by_rule, counted=counted)


def _mentions(tokens: Sequence[str], text: str, readers: _Readers) -> list[Mention]:
    """What the text names; misspellings, and styles outside the taxonomy, are looked for only if no style matches."""
    styles, mentions = readers.styles, readers.lexicon.mentions_in(tokens)
    if any(mention.node in styles for mention in mentions):
        return mentions
    alike = [mention for mention in readers.lexicon.likenesses(tokens) if mention.node in styles]
    if not alike and OTHER_STYLE in styles and (words := other_style(text)):
        alike = [Mention(node=OTHER_STYLE, words=words, weight=LIKE)]
    return mentions + alike


def _emphasised(mentions: Sequence[Mention], emphasis: Sequence[Emphasis]) -> list[Mention]:
    """Mentions with the weights that the prompt gives their words."""
    if not emphasis:
        return list(mentions)
    strength = {token: one.weight for one in emphasis for token in tokens_of(one.words)}
    return [replace(one, weight=one.weight * strength.get(tokens_of(one.words)[0], 1.0)) for one in mentions]


def _about(tokens: Sequence[str], mentions: Sequence[Mention], readers: _Readers) -> list[Mention]:
    """Mentions of subjects, weighted by how much the picture is about them."""
    named = [mention for mention in mentions if mention.node in readers.subjects]
    roles = weigh_subjects(tokens, named)
    return [replace(one, weight=min(one.weight, 1.0) * role) for one, role in zip(named, roles, strict=True)]


def _names(mentions: Sequence[Mention], node: str) -> bool:
    return any(mention.node == node for mention in mentions)


def _unwanted(denied: Sequence[str], styles: Mapping[str, float], readers: _Readers) -> tuple[str, ...]:
    """Styles that the text denies and does not ask for elsewhere; "without a hat" denies no kind of subject."""
    found = dict.fromkeys(mention.node for text in denied for mention in readers.lexicon.mentions(text))
    return tuple(node for node in found if node in readers.styles and node not in styles)


def _meant(text: str, clean: str, named: Sequence[Mention], readers: _Readers) -> tuple[list[Mention], Clauses | None]:
    """The subject and style that a text means where it names none, and the clauses if the embedder was asked."""
    meaning, subject = readers.meaning, not weights(named, readers.subjects)
    style = not weights(named, readers.styles) and is_other_language(text)
    if meaning is None or not (subject or style) or not can_read(text):
        return [], None
    vector, clauses = meaning.read(text, clean)
    meant = []
    if subject and (node := meaning.subject(vector)):
        meant.append(Mention(node=node, words="", weight=IMPLIED_WEIGHT))
    if style and (node := meaning.style(vector)):
        meant.append(Mention(node=node, words="", weight=LIKE))
    return meant, clauses


def _styles(mentions: Sequence[Mention], readers: _Readers) -> dict[str, float]:
    found = weights(mentions, readers.styles)
    sure = NAMED if max(found.values(), default=0.0) >= 1 else LIKE
    total = sum(found.values())
    return {node: sure * weight / total for node, weight in found.items()}


def _subjects(mentions: Sequence[Mention], readers: _Readers) -> dict[str, float]:
    found = weights(mentions, readers.subjects)
    total = sum(SUBJECT_PRIOR + found.get(node, 0.0) for node in readers.subjects)
    return {node: (SUBJECT_PRIOR + found.get(node, 0.0)) / total for node in readers.subjects}


def _of_kind(kind: NodeKind, nodes: Sequence[Node]) -> Mapping[str, Node]:
    return {node.id: node for node in nodes if node.kind == kind}


def _weights(values: Mapping[str, float]) -> tuple[NodeWeight, ...]:
    ordered = sorted(values.items(), key=lambda item: -item[1])
    return tuple(NodeWeight(node=node, p=round(p, 6)) for node, p in ordered)
