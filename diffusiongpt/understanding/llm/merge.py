"""From an LLM's votes and words to a thought: weighed against what the local thinker read, and kept to the text.

Weights are pseudo-observations of a Dirichlet mean: p = (w_llm * share + w_local * local) / (w_llm + w_local).
Five voices in one completion are one sample, so `w_llm` does not grow with their number, and even if they agree
on a style that the text does not name it gets 4/5, between the local thinker's .7 for a likeness and .95 for a name.
The weights are set by that reasoning, not fitted to data.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from diffusiongpt.embedding.lexical import CJK, normalize, words
from diffusiongpt.flow.understanding import NodeWeight
from diffusiongpt.understanding.literal import scripts_of
from diffusiongpt.understanding.llm.schema import LANGUAGES, VOICES, Ballot, Reading
from diffusiongpt.understanding.thinker import Thought
from diffusiongpt.zoo.expert import ROOT
from diffusiongpt.zoo.taxonomy import Node, NodeKind

LLM_WEIGHT = 4.0
"""What all five voices together weigh; less if some say nothing usable."""

NAMED_WEIGHT = 4.0
"""What the local thinker weighs where the text names a node: as much as the LLM."""

SILENT_WEIGHT = 1.0
"""The same where the text names none: not knowing is weak evidence."""

IMPLIED_VOICES = 3
"""Voices from which a node counts as clearly implied by the text: a majority."""

_GLUE = frozenset(
    (*"的在和与了是上里中有一个张幅只", "a", "an", "the", "of", "in", "on", "at", "with", "and", "or", "to", "is")
)
_MIN_KEPT = 1 / 3
"""Share of the prompt's words that a clean prompt must keep: greetings and thanks may go, the picture may not."""

_CJK = re.compile(f"[{CJK}]")


def weigh(
    local: Thought, values: Mapping[str, float], reading: Reading, ballot: Ballot, nodes: Sequence[Node]
) -> dict[str, float]:
    """Probability of each node, the votes of one answer taken into account.

    A vote for no style is one for none; a vote for no subject leaves the subjects as they were, since every
    picture has one. Either leaves nodes as they were that were not on the ballot.

    Args:
        local: What the local thinker made of the prompt.
        values: Probabilities without that answer.
        reading: The answer.
        ballot: What was voted on.
        nodes: All nodes.

    Returns:
        Values of which subjects sum to at most one, and styles too.
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
        local: What the local thinker made of the prompt; its literal facts win.
        reading: The answer about the prompt itself.
        values: Probability per node, from `weigh`.
        nodes: All nodes.
        prompt: What the person typed.
        history: What they typed before.
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


def is_quoted_from(text: str, said: str) -> bool:
    """Whether every word of a text is a word of what the person said; small words aside."""
    return set(_tokens(text)) - _GLUE <= set(_tokens(said))


def _facts(thought: Thought, fields: Mapping[str, Any], prompt: str, history: Sequence[str]) -> dict[str, Any]:
    """What the answer says of the prompt itself, as far as the text bears it out."""
    local = thought.understanding
    facts = {name: fields[name] for name in ("paradigm", "subject_class") if name in fields}
    facts["edit"] = local.edit or fields.get("edit", False)
    facts["language"] = _language(fields.get("language", ""), local.language)
    clean = " ".join(fields.get("prompt", "").split())
    if _is_faithful(clean, thought, prompt, history):
        facts["prompt"] = clean
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
    """Whether a prompt written by an LLM only leaves out.

    No word is added, nothing named or quoted is lost, and nothing comes in that must not be there.
    """
    local = thought.understanding
    kept, wanted = set(_tokens(clean)), set(_tokens(local.prompt)) - _GLUE
    literal = [*local.text_to_render, *local.colors, *thought.matched.values()]
    # "make it blue" says little by itself, so after other prompts less of its own words may be left
    enough = 0 if history else _MIN_KEPT * len(wanted)
    return (
        bool(kept)
        and is_quoted_from(clean, "\n".join((*history, prompt)))
        and not (kept - _GLUE) & set(_tokens(local.negative))
        and len(kept & wanted) >= enough
        and all(set(_tokens(text)) <= kept for text in literal)
    )


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
    """Nodes of one kind: shares of the votes mixed with what was thought before.

    Args:
        votes: Nodes each voice named.
        values: What was thought before.
        light: Its weight.
        ids: The nodes.
        deniable: Nodes that a vote for none speaks against.
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
    """Nodes that a majority of the voices names."""
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
    return [token for word in words(normalize(text)) for token in (word if _is_cjk(word) else (word,))]


def _is_cjk(word: str) -> bool:
    return _CJK.match(word) is not None
