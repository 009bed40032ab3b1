"""From an LLM's answer to a thought: weighed against the local thinker's reading, and held to the prompt's text.

Weights are pseudo-observations of a Dirichlet mean: p = (w_llm * share + w_local * local) / (w_llm + w_local).
Five voices in one completion are one sample, so `w_llm` does not grow with their number, and even a style that all of
them name and the text does not gets 4/5, between the local thinker's .7 for a similar word and .95 for a name.
The weights follow from this reasoning and are not fitted to data.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from diffusiongpt.embedding import CJK, normalize, words
from diffusiongpt.flow import NodeWeight, Understanding
from diffusiongpt.understanding.languages import scripts_of
from diffusiongpt.understanding.llm.form import LANGUAGES, VOICES, Ballot, Reading
from diffusiongpt.understanding.thinker import Thought
from diffusiongpt.zoo import ROOT, Node, NodeKind

LLM_WEIGHT = 4.0
"""Weight of all five voices together; less if some have no usable vote."""

NAMED_WEIGHT = 4.0
"""Weight of the local thinker where the text names a node: as much as the LLM."""

SILENT_WEIGHT = 1.0
"""Weight of the local thinker where the text names none, since not knowing is weak evidence."""

IMPLIED_VOICES = 3
"""Number of voices, a majority, from which a node counts as clearly implied by the text."""

_GLUE = frozenset(
    (*"的在和与了是上里中有一个张幅只", "a", "an", "the", "of", "in", "on", "at", "with", "and", "or", "to", "is")
)
MAX_REWRITTEN = 4_000
"""Characters of a rewritten prompt; the form asks for 120 words."""

_MIN_KEPT = 1 / 3
"""Share of the prompt's words that a clean prompt must keep: greetings may go, parts of the picture may not."""

_CJK = re.compile(f"[{CJK}]")


def weigh(
    local: Thought, values: Mapping[str, float], reading: Reading, ballot: Ballot, nodes: Sequence[Node]
) -> dict[str, float]:
    """Probability of each node after the votes of one answer.

    A vote for no style lowers the styles on the ballot; a vote for no subject leaves the subjects as they were,
    since every picture has one. Nodes that were not on the ballot keep their values either way.

    Args:
        local: The local thinker's reading of the prompt.
        values: Probabilities before the answer.
        reading: The LLM's answer.
        ballot: The nodes that were voted on.
        nodes: All nodes of the taxonomy.

    Returns:
        Probability by node; subjects sum to at most one, and so do styles.
    """
    weighed = dict(values)
    understood = local.understanding
    if ballot.subjects:
        light = NAMED_WEIGHT if understood.subjects else SILENT_WEIGHT
        votes = [voice.subjects for voice in reading.voices if voice.subjects is not None]
        weighed |= _mixed(votes, values, light, [node.id for node in nodes if node.kind == "subject"], frozenset())
    if ballot.styles:
        light = NAMED_WEIGHT if understood.styles else SILENT_WEIGHT
        votes = [voice.styles for voice in reading.voices if voice.styles is not None]
        weighed |= _mixed(votes, values, light, [node.id for node in nodes if node.kind == "style"], ballot.ids())
    return {node: p for node, p in weighed.items() if p > 0 or node in values}


def merge(
    local: Thought,
    reading: Reading,
    values: Mapping[str, float],
    nodes: Sequence[Node],
    *,
    prompt: str,
    history: Sequence[str],
) -> Thought:
    """The thought of an LLM that answered.

    Args:
        local: The local thinker's reading of the prompt, whose literal facts take precedence.
        reading: The answer about the prompt itself.
        values: Probability by node, from `weigh`.
        nodes: All nodes of the taxonomy.
        prompt: What the person typed.
        history: Earlier prompts, oldest first.
    """
    understanding = local.understanding
    backed = _backed(reading)
    lists = {
        "subjects": _weights(_known(understanding.subjects, backed, "subject", nodes), values),
        "styles": _weights(_known(understanding.styles, backed, "style", nodes), values),
    }
    styles = sum(values.get(node.id, 0.0) for node in nodes if node.kind == "style")
    evidence = {**{node: p for node, p in values.items() if p > 0}, ROOT: round(max(0.0, 1 - styles), 6)}
    update = {**_facts(local, reading.fields, prompt, history), **lists, "evidence": evidence}
    return Thought(
        understanding=understanding.model_copy(update=update), values=dict(values), matched=local.matched, thinker="llm"
    )


def is_quoted_from(text: str, source: str) -> bool:
    """Whether every word of a text, except for articles and the like, is a word of its source."""
    return set(_tokens(text)) - _GLUE <= set(_tokens(source))


def _facts(thought: Thought, fields: Mapping[str, Any], prompt: str, history: Sequence[str]) -> dict[str, Any]:
    """The facts in an answer that the text of the prompt supports."""
    local = thought.understanding
    facts = {name: fields[name] for name in ("paradigm", "subject_class") if name in fields}
    facts["edit"] = local.edit or fields.get("edit", False)
    facts["language"] = _language(fields.get("language", ""), local.language)
    clean = " ".join(fields.get("prompt", "").split())
    if _is_faithful(clean, thought, prompt, history):
        facts["prompt"] = clean
    facts["rewritten"] = _rewritten(fields.get("rewritten", ""), local)
    negative = " ".join(fields.get("negative", "").split())
    if not local.negative and not local.transparent_background and is_quoted_from(negative, prompt):
        facts["negative"] = "" if set(_tokens(clean)) & set(_tokens(negative)) - _GLUE else negative
    if not local.text_to_render:
        found = [text.strip() for text in fields.get("text_to_render", ()) if text.strip() in prompt]
        texts = tuple(dict.fromkeys(text for text in found if text and set(_tokens(text)) < set(_tokens(prompt))))
        facts["text_to_render"] = texts
        facts["text_scripts"] = tuple(dict.fromkeys(script for text in texts for script in scripts_of(text)))
    return facts


def _is_faithful(clean: str, thought: Thought, prompt: str, history: Sequence[str]) -> bool:
    """Whether a prompt written by an LLM only leaves words out.

    It adds no word, keeps everything that is named or quoted, and has nothing that must not be in the picture.
    """
    local = thought.understanding
    kept, wanted = set(_tokens(clean)), set(_tokens(local.prompt)) - _GLUE
    codes = [color for color in local.colors if color.casefold() in prompt.casefold()]
    literal = [*local.text_to_render, *codes, *thought.matched.values()]
    # "make it blue" is incomplete by itself, so after other prompts fewer of its own words may be left
    enough = 0 if history else _MIN_KEPT * len(wanted)
    return (
        bool(kept)
        and is_quoted_from(clean, "\n".join((*history, prompt)))
        and not (kept - _GLUE) & set(_tokens(local.negative))
        and len(kept & wanted) >= enough
        and all(set(_tokens(text)) <= kept for text in literal)
    )


def _rewritten(text: str, local: Understanding) -> str:
    """What is to be seen, as an LLM wrote it out; empty where the prompt takes no thinking, or it lost what must stay.

    Whether a prompt takes thinking is read from its text, so that an LLM cannot write over a plain one. Texts to render
    and codes of colours are in it letter for letter, and nothing that the prompt denies.
    """
    text = " ".join(text.split())
    codes = [code.casefold() for code in local.colors if code.casefold() in local.prompt.casefold()]
    sound = (
        local.reasoning
        and not local.edit
        and len(text) <= MAX_REWRITTEN
        and text.isprintable()
        and all(code in text.casefold() for code in codes)
        and all(words in text for words in local.text_to_render)
        and not (set(_tokens(text)) - _GLUE) & set(_tokens(local.negative))
    )
    return text if sound else ""


def _language(claimed: str, local: str) -> str:
    """The LLM's language if the prompt is written in a script of that language; the script is read by code."""
    script = LANGUAGES.get(claimed)
    fits = script is not None and script == LANGUAGES.get(local)
    return claimed if fits or (claimed == "ja" and local == "zh") else local


def _mixed(
    votes: Sequence[tuple[str, ...]],
    values: Mapping[str, float],
    light: float,
    ids: Sequence[str],
    deniable: frozenset[str],
) -> dict[str, float]:
    """Probabilities of nodes of one kind: shares of the votes mixed with the values before.

    Args:
        votes: The nodes that each voice named.
        values: Probabilities before the votes.
        light: Weight of these, in pseudo-observations.
        ids: Ids of the nodes.
        deniable: Nodes whose probability a vote for none lowers.
    """
    heavy = LLM_WEIGHT * len(votes) / VOICES
    none = sum(not vote for vote in votes) / max(len(votes), 1)
    mixed = {}
    for node in ids:
        before = values.get(node, 0.0)
        share = sum((node in vote) / len(vote) for vote in votes if vote) / max(len(votes), 1)
        share += 0.0 if node in deniable else none * before
        mixed[node] = (heavy * share + light * before) / (heavy + light)
    return mixed


def _backed(reading: Reading) -> set[str]:
    """Nodes that a majority of the voices name."""
    counts = Counter(node for voice in reading.voices for node in (*(voice.subjects or ()), *(voice.styles or ())))
    return {node for node, count in counts.items() if count >= IMPLIED_VOICES}


def _known(named: Sequence[NodeWeight], backed: set[str], kind: NodeKind, nodes: Sequence[Node]) -> list[str]:
    here = {weight.node for weight in named}
    return [node.id for node in nodes if node.kind == kind and (node.id in here or node.id in backed)]


def _weights(ids: Sequence[str], values: Mapping[str, float]) -> tuple[NodeWeight, ...]:
    ordered = sorted(ids, key=lambda node: -values.get(node, 0.0))
    return tuple(NodeWeight(node=node, p=round(min(values.get(node, 0.0), 1.0), 6)) for node in ordered)


def _tokens(text: str) -> list[str]:
    """Words of a text; a CJK character is a word."""
    return [token for word in words(normalize(text)) for token in (word if _CJK.match(word) else (word,))]
