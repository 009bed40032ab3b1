"""The file of scores that the program of the DiffusionGPT paper reads: prompt → model → metric → number.

That program (`DiffusionGPT-sd15-app.py`, `select_best_model_with_HF`) looks a prompt up by its first 100
characters without line breaks, and ranks models by `image_reward`. The numbers are a reward model's
(ImageReward), though the paper speaks of human feedback, so each metric enters as a source of its own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from diffusiongpt.errors import VoteError
from diffusiongpt.preferences.exchange.problems import Placed, content_id, read_text
from diffusiongpt.preferences.ratings import Rating

SHAPE = 'Its shape is {"PROMPT": {"MODEL": {"image_reward": 0.5}}}.'


def read_prompt2scores(path: Path) -> list[Placed]:
    """A rating for each score, with the metric as its source and voter.

    Raises:
        VoteError: If the file does not have the shape, or names a prompt or a model twice.
    """
    try:
        found = json.loads(read_text(path), object_pairs_hook=lambda pairs: _unique(path, pairs))
    except (json.JSONDecodeError, RecursionError) as error:
        raise VoteError(f"{path}: not JSON: {error}", hint=SHAPE) from error
    return [_placed(path, *score) for score in _scores(path, found)]


def _scores(path: Path, found: object) -> Iterator[tuple[str, str, str, object]]:
    for prompt, models in _items(found, str(path)):
        for model, metrics in _items(models, f"{path}, prompt {prompt!r}"):
            for metric, score in _items(metrics, f"{path}, prompt {prompt!r}, model {model!r}"):
                yield prompt, model, metric, score


def _placed(path: Path, prompt: str, model: str, metric: str, score: Any) -> Placed:
    where = f"{path}, prompt {prompt!r}, model {model!r}, {metric}"
    key = content_id("prompt2scores", prompt, model, metric, score)
    try:
        rating = Rating(prompt=prompt, expert=model, rating=score, voter=metric, source=metric, id=key)
    except VoteError as error:
        raise VoteError(f"{where}: {error}", hint=error.hint) from error
    return Placed(rating, where)


def _items(value: object, where: str) -> Iterator[tuple[str, Any]]:
    if not isinstance(value, dict):
        raise VoteError(f"{where}: {type(value).__name__} where an object should be", hint=SHAPE)
    yield from value.items()


def _unique(path: Path, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise VoteError(f"{path}: {key!r} is there twice", hint="Remove one of the two.")
        found[key] = value
    return found
