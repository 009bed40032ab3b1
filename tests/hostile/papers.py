"""Lists, trees and scores of models for `zoo import`, and the files that they name."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from hostile import Attack
from hostile._command import call
from hostile._strange import as_text, spoilt

KIND = "zoo import"
NAMES = (
    "../../x", "/etc/passwd", "a/b", "x.safetensors", "\x1b]0;x\x07", "[/b]", "a\0b", "CON", "-", "--help", "x" * 300,
    "\u202e", "{x}", "~root", "*", "file://x", "pipe", "link", "deep/x",
)  # fmt: skip


def attacks(seed: int, count: int) -> Iterator[Attack]:
    """See `hostile`."""
    makers = (_values, _values, _names, _scores, _large)
    for number in range(count):
        rng = random.Random(f"{seed} {KIND} {number}")  # noqa: S311  # a mess, not a secret
        maker = makers[number % len(makers)]
        yield Attack(KIND, f"{maker.__name__[1:]} {number}", partial(_meet, maker, rng))


def _meet(maker: Callable[[random.Random], tuple[str, bytes]], rng: random.Random, folder: Path) -> None:
    """Import it into a new zoo file, beside files of the names in it, and read what was written."""
    name, data = maker(rng)
    (folder / name).write_bytes(data)
    weights = folder / "weights"
    weights.mkdir()
    (weights / "x.safetensors").write_bytes(rng.choice((b"", b"\xff" * 100, (1 << 60).to_bytes(8, "little") + b"{}")))
    os.mkfifo(weights / "pipe.safetensors")
    (weights / "link.safetensors").symlink_to("/dev/zero")
    zoo = folder / "mine.yaml"
    options = ["--files", str(weights), "--zoo", str(zoo), "--yes", *rng.choice(([], ["--json"]))]
    call(folder, "zoo", "import", str(folder / name), *options, HF_ENDPOINT="http://127.0.0.1:9")
    if zoo.exists():
        code = call(folder, "zoo", "check", str(zoo))
        assert code == 0, "what was written is not a zoo file"


def _model(rng: random.Random) -> dict[str, Any]:
    return {
        "model_name": rng.choice(("x.safetensors", "owner/name", *NAMES)),
        "model_type": rng.choice(("checkpoint merge", "lora", "LyCORIS")),
        "tag": ["anime", "girl"],
        "trigger_words": ["ink"],
        "base_model": rng.choice(("SD 1.5", "SDXL 1.0", "Other")),
        "resources_used": ["a.safetensors"],
        "example_prompts": ["a fox <lora:x:0.6>"],
        "negtive_prompts": "None",
    }


def _shape(rng: random.Random) -> Any:
    models = [_model(rng) for _ in range(rng.randint(1, 4))]
    return rng.choice((models, {"people": {"anime": models, "photo": models}}))


def _values(rng: random.Random) -> tuple[str, bytes]:
    return "model_data.json", as_text(spoilt(_shape(rng), rng, rng.randint(1, 3)), rng)


def _names(rng: random.Random) -> tuple[str, bytes]:
    models = [{**_model(rng), "model_name": name, "tag": [rng.choice(NAMES)]} for name in NAMES]
    return "model_data.json", json.dumps(models).encode()


def _scores(rng: random.Random) -> tuple[str, bytes]:
    scores = {f"prompt {number}": {"x.safetensors": {"aes": 0.5, "hps": 0.2}} for number in range(3)}
    return "prompt2scores.json", as_text(spoilt(scores, rng, rng.randint(0, 2)), rng)


def _large(rng: random.Random) -> tuple[str, bytes]:
    how = rng.randrange(3)
    if how == 0:
        found: Any = [{"model_name": f"m{number}"} for number in range(rng.choice((4_000, 6_000)))]
    elif how == 1:
        found = {f"s{number}": {f"t{at}": [] for at in range(100)} for number in range(500)}
    else:
        found = [{**_model(rng), "tag": ["x" * 8_000] * 200}] * 5
    return "model_tree.json", json.dumps(found).encode()
