"""Pasted generation parameters: the text that AUTOMATIC1111 and similar tools store in pictures, and prompts as JSON.

a fox, masterpiece
Negative prompt: blurry
Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x512, Model: dreamshaper
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from diffusiongpt.flow import MAX_SEED, Unused

_NEGATIVE = re.compile(
    r"(?:^|\n|(?<=[\s.,。，]))(?:negative[ _]prompts?|(?:negative|neg)\.? ?prompt|negatives?(?=\s*:)|"
    r"(?:负面|反向|负向|負面|反向)(?:提示)?(?:词|詞|语)?)\s*[:：=]\s*",
    re.IGNORECASE,
)
_POSITIVE = re.compile(
    r"^\s*(?:positive[ _]prompt|prompt|(?:正面|正向)?(?:提示)(?:词|詞|语))\s*[:：]\s*", re.IGNORECASE
)
_PAIR = re.compile(r"\s*(?P<key>[A-Za-z][\w \-/]{0,40}?)\s*:\s*(?P<value>\"(?:\\.|[^\"\\])*\"|[^,\n]*)(?:,|\n|$)")
_STEPS = re.compile(r"(?:^|\n|(?<=[\s.,]))Steps:\s*\d{1,5}\s*(?:,|\n|$)", re.IGNORECASE)
_FEWEST_PAIRS = 3
"""Pairs from which a last line counts as parameters, as AUTOMATIC1111's own reader has it."""

_KEYS = {
    "steps": "steps", "num_inference_steps": "steps", "cfg scale": "cfg", "cfg_scale": "cfg", "cfg": "cfg",
    "guidance scale": "cfg", "guidance_scale": "cfg", "distilled cfg scale": "cfg", "guidance": "cfg",
    "seed": "seed", "size": "size",
}  # fmt: skip
_LONGEST_JSON = 20_000


@dataclass
class Settings:
    """A prompt and what came with it.

    Attributes:
        prompt: The words of the prompt.
        negative: The negative prompt.
        seed: Seed.
        steps: Denoising steps.
        guidance: Guidance scale.
        size: Width and height in pixels.
        unused: What is not applied, and why.
    """

    prompt: str
    negative: str = ""
    seed: int | None = None
    steps: int | None = None
    guidance: float | None = None
    size: tuple[int, int] | None = None
    unused: list[Unused] = field(default_factory=list)

    def take(self, key: str, value: str) -> None:
        """Take one value if it is sane; name it as unused if not."""
        number = re.fullmatch(r"-?\d{1,20}(?:\.\d{1,10})?", value.strip())
        if key == "size":
            sides = re.fullmatch(r"(\d{1,5})\s*[x×*]\s*(\d{1,5})", value.strip())
            if sides:
                self.take_size(int(sides[1]), int(sides[2]))
                return
        elif number and key == "seed" and value.strip() == "-1":
            return  # any seed
        elif number and key == "seed" and 0 <= float(value) <= MAX_SEED:
            self.seed = int(float(value))
            return
        elif number and key == "steps" and 1 <= float(value) <= 1000:
            self.steps = int(float(value))
            return
        elif number and key == "cfg" and 0 <= float(value) <= 100:
            self.guidance = float(value)
            return
        self.refuse(key, value, "out of range")

    def take_size(self, width: int, height: int) -> None:
        """Take a size that pictures have; name any other as unused."""
        if 64 <= width <= 8192 and 64 <= height <= 8192:
            self.size = width, height
        else:
            self.refuse("size", f"{width}x{height}", "out of range")

    def refuse(self, name: str, value: str, reason: str) -> None:
        """Name something that is not applied."""
        self.unused.append(Unused(name=name, value=value.strip()[:200], reason=reason))


def split_infotext(text: str) -> Settings:
    """Separate a prompt from the parameters pasted with it; a plain prompt is returned as it is."""
    if (data := _as_json(text)) is not None:
        return _from_json(data)
    body, pairs = _split_pairs(text)
    parts = _NEGATIVE.split(body, maxsplit=1)
    if len(parts) == 1 and not pairs:
        return Settings(text)
    if len(parts) > 1 and not parts[0].strip() and "\n" in parts[1]:
        # what must not be there stands first, on a line of its own
        denied, _, wanted = parts[1].partition("\n")
        parts = [wanted, denied]
    settings = Settings(_POSITIVE.sub("", parts[0]).strip() or text.strip())
    settings.negative = " ".join(parts[1].split()).strip(" ,") if len(parts) > 1 else ""
    for key, value in pairs:
        _apply(settings, key, value)
    return settings


def _apply(settings: Settings, key: str, value: str) -> None:
    known = _KEYS.get(key.lower())
    value = _unquoted(value)
    if known:
        settings.take(known, value)
    elif key.lower() in ("model", "checkpoint"):
        settings.refuse(key.lower(), value, "experts are chosen by the prompt, or by name with expert=")
    elif value:
        settings.refuse(key.lower(), value, "experts draw with their own")


def _split_pairs(text: str) -> tuple[str, list[tuple[str, str]]]:
    """The text before the parameters, and the parameters; none if there are fewer than three."""
    starts = [match.start() for match in _STEPS.finditer(text)]
    lines = text.rstrip().rpartition("\n")
    if lines[1]:
        starts.append(len(lines[0]) + 1)
    for start in sorted(set(starts)):
        tail = text[start:].lstrip()
        pairs = [(match["key"].strip(), match["value"].strip()) for match in _PAIR.finditer(tail)]
        covered = sum(len(match.group()) for match in _PAIR.finditer(tail))
        known = sum(
            key.lower() in _KEYS or key.lower() in ("sampler", "model", "model hash", "version") for key, _ in pairs
        )
        if known >= _FEWEST_PAIRS and covered >= 0.9 * len(tail.rstrip()):
            return text[:start], pairs
    return text, []


def _unquoted(value: str) -> str:
    try:
        return str(json.loads(value)) if value.startswith('"') else value
    except ValueError:
        return value.strip('"')


def _as_json(text: str) -> Mapping[str, Any] | None:
    stripped = text.strip()
    if not (stripped.startswith("{") and stripped.endswith("}") and len(stripped) <= _LONGEST_JSON):
        return None
    try:
        data = json.loads(stripped)
    except (ValueError, RecursionError):
        return None
    prompt = _first_text(data, "prompt", "positive_prompt", "positive") if isinstance(data, dict) else ""
    return data if prompt else None


def _from_json(data: Mapping[str, Any]) -> Settings:
    settings = Settings(_first_text(data, "prompt", "positive_prompt", "positive"))
    settings.negative = _first_text(data, "negative_prompt", "negative")
    width, height = data.get("width"), data.get("height")
    if type(width) is int and type(height) is int:
        settings.take_size(width, height)
    for key, value in list(data.items())[:100]:
        if key in ("prompt", "positive_prompt", "positive", "negative_prompt", "negative", "width", "height"):
            continue
        if isinstance(value, (int, float, str)) and not isinstance(value, bool):
            _apply(settings, str(key)[:40], str(value)[:200])
    return settings


def _first_text(data: Mapping[str, Any], *keys: str) -> str:
    return next((value.strip() for key in keys if isinstance(value := data.get(key), str) and value.strip()), "")
