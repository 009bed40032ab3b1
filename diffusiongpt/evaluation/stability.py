"""Whether a pick survives another wording of the same wish."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from diffusiongpt.embedding import CJK

if TYPE_CHECKING:
    from collections.abc import Sequence

    from diffusiongpt.evaluation.data import Mask
    from diffusiongpt.evaluation.methods import Picker

PROMPTS = 100
"""Prompts that are reworded; a share of them has a standard error of .025 at most over four wordings each."""

_CHINESE = re.compile(f"[{CJK}]")


def rewordings(prompt: str, *, seed: int) -> dict[str, str]:
    """Other ways to write the same wish: with a typing mistake, in capitals, politely, with its parts swapped.

    Args:
        prompt: Any language; a script without spaces or capitals keeps what it has no other way to write.
        seed: Decides where the mistake is.

    Returns:
        Texts by kind: `typo`, `capitals`, `polite`, `order`.
    """
    chinese = _CHINESE.search(prompt) is not None
    return {
        "typo": _typo(prompt, np.random.default_rng(seed)),
        "capitals": prompt.upper(),
        "polite": f"请画{prompt}" if chinese else f"please draw {prompt}",
        "order": _turned(prompt),
    }


def stability(picker: Picker, prompts: Sequence[str], allowed: Mask, *, seed: int) -> float | None:
    """Share of reworded prompts that get the same expert as the prompt itself; `None` if none can be reworded.

    Args:
        picker: What a method has learnt.
        prompts: Texts; `PROMPTS` of them are drawn.
        allowed: Who may be picked, shape (prompts, experts).
        seed: Of the draw and of the typing mistakes.
    """
    rng = np.random.default_rng(seed)
    drawn = rng.permutation(len(prompts))[:PROMPTS]
    reworded = [
        (int(index), text)
        for index in drawn
        for text in rewordings(prompts[index], seed=int(index)).values()
        if text != prompts[index]
    ]
    if not reworded:
        return None
    rows, texts = [index for index, _ in reworded], [text for _, text in reworded]
    before = dict(zip(drawn.tolist(), picker.pick([prompts[i] for i in drawn], allowed[drawn]).tolist(), strict=True))
    after = picker.pick(texts, allowed[rows])
    return float(np.mean([before[row] == pick for row, pick in zip(rows, after.tolist(), strict=True)]))


def _typo(prompt: str, rng: np.random.Generator) -> str:
    """Two neighbouring letters swapped inside a word of four or more."""
    places = [match.start() + 1 for match in re.finditer(r"[^\W\d_]{4,}", prompt) if not _CHINESE.search(match[0])]
    if not places:
        return prompt
    at = int(rng.choice(places))
    return prompt[:at] + prompt[at + 1] + prompt[at] + prompt[at + 2 :]


def _turned(prompt: str) -> str:
    """What stands behind the last comma comes first."""
    match = re.fullmatch(r"(.*\S)\s*([,，、])\s*([^,，、.。!?]+)([.。!?]?)", prompt, re.DOTALL)
    if not match:
        return prompt
    first, comma, last, end = match.groups()
    return f"{last.strip()}{comma}{' ' if comma == ',' else ''}{first}{end}"
