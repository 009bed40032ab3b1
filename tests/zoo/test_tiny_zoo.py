"""The tiny zoo: its files, and that the right expert draws what was requested."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from diffusiongpt.backends import get_backend
from diffusiongpt.drawing import resolve
from diffusiongpt.flow import Request
from diffusiongpt.hub import names_in
from diffusiongpt.testing import TINY_FOLDER
from diffusiongpt.understanding import LocalThinker
from diffusiongpt.zoo import Zoo
from diffusiongpt.zoo.tiny import TinyJudge

ASKED = (
    ("red", "heart", "yellow"),
    ("blue", "fish", "white"),
    ("green", "tree", "orange"),
    ("purple", "star", "gray"),
)
WORDS = {"vector": "flat vector art", "pixel": "8-bit", "sketch": "charcoal drawing", "oil": "impasto"}


def test_weights_fit_into_a_wheel() -> None:
    """The files have at most 16 MB in total, and all weights are safetensors."""
    files = [path for path in TINY_FOLDER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 16_000_000
    assert not [path for path in files if path.suffix in {".bin", ".pt", ".ckpt", ".pkl"}]


@pytest.mark.parametrize("component", ["text_encoder", "tokenizer", "vae", "scheduler"])
def test_shared_components_are_the_same_bytes(component: str) -> None:
    """A cache that identifies components by content has one copy of the shared ones for all five experts."""
    folders = [expert.folder / component for expert in Zoo.load("tiny").values() if expert.folder]
    assert len(folders) == 5
    assert len({_digest(folder) for folder in folders}) == 1


def test_the_zoo_recommends_what_was_measured() -> None:
    """The call in the zoo file is the one of the benchmark figures."""
    from examples.tiny_zoo.cards import SETTINGS

    for expert in Zoo.load("tiny").values():
        assert {name: getattr(expert.settings, name) for name in SETTINGS} == dict(SETTINGS)


def test_pairs_kept_out_of_training_stay_out() -> None:
    """`held_out` marks exactly the pairs that training leaves out."""
    from examples.tiny_zoo.data import HELD_OUT_PAIRS, originals, scene_of

    drawn = originals(300, size=64, seed=0, workers=1)
    trained = drawn.where(~drawn.held_out())
    seen = {(scene.object, scene.color) for scene in map(scene_of, trained.labels)}
    left = {(scene.object, scene.color) for scene in map(scene_of, drawn.where(drawn.held_out()).labels)}
    assert len(seen) > 50
    assert not seen & HELD_OUT_PAIRS
    assert left <= HELD_OUT_PAIRS
    assert left


def test_the_right_expert_draws_what_was_asked_and_another_does_not() -> None:
    """Object, colour, background and style are right with the style's expert; with another the style is wrong.

    The floors are .92 and .15 (benchmarks/tiny_zoo.py measures them); this is 16 pictures each.
    """
    drawn = {(expert, style): _share_correct(expert, style) for expert, style in _pairs()}
    right = [share for (expert, style), share in drawn.items() if expert == style]
    wrong = [share for (expert, style), share in drawn.items() if expert != style]
    assert sum(right) / len(right) >= 0.85
    assert sum(wrong) / len(wrong) <= 0.15


def _pairs() -> list[tuple[str, str]]:
    neighbours = {"vector": "pixel", "pixel": "sketch", "sketch": "oil", "oil": "vector"}
    return [(style, style) for style in WORDS] + list(neighbours.items())


def _share_correct(name: str, style: str) -> float:
    zoo, judge = Zoo.load("tiny"), TinyJudge.load()
    expert = zoo[f"tiny-{name}"]
    assert expert.folder is not None
    backend = get_backend(expert.backend)
    loaded = backend.load(expert, expert.folder, names_in(expert.folder), device="cpu", have={})
    thinker, nodes = LocalThinker(), tuple(zoo.taxonomy.nodes.values())
    correct = 0
    for seed, (color, item, ground) in enumerate(ASKED):
        prompt = f"{WORDS[style]}, a {color} {item} on a {ground} background"
        understanding = thinker.think(prompt, (), nodes).understanding
        image = backend.draw(loaded, resolve(Request(prompt=prompt, seed=seed), understanding, expert)).images[0]
        seen = judge.read(image)
        correct += (seen.object, seen.color, seen.background, seen.style) == (item, color, ground, style)
    return correct / len(ASKED)


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        digest.update(path.name.encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()
