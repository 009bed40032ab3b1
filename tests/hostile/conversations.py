"""Conversation files of strangers: turns that do not hold together, pictures elsewhere, more than fits in memory."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from functools import cache, partial
from io import BytesIO
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from hostile import Attack
from hostile._command import call
from hostile._strange import as_text, spoilt

KIND = "conversation"


def attacks(seed: int, count: int) -> Iterator[Attack]:
    """See `hostile`."""
    makers = (_values, _values, _values, _pictures, _places, _many)
    for number in range(count):
        rng = random.Random(f"{seed} {KIND} {number}")  # noqa: S311  # a mess, not a secret
        maker = makers[number % len(makers)]
        yield Attack(KIND, f"{maker.__name__[1:]} {number}", partial(_meet, maker, rng))


def _meet(maker: Callable[[Path, random.Random], Path], rng: random.Random, folder: Path) -> None:
    """Go on with it in Python and on the command line; what it names outside stays unread."""
    from diffusiongpt.conversation import Conversation
    from diffusiongpt.errors import DiffusionGPTError
    from diffusiongpt.settings import load_settings
    from diffusiongpt.studio import DiffusionGPT

    file = maker(folder, rng)
    settings = load_settings(home=folder / "home", hub_cache=folder / "hub", device="cpu")
    with DiffusionGPT("tiny", settings=settings) as studio:
        try:
            conversation = Conversation.load(file, studio=studio)
            print([turn.text[:50] for turn in conversation.turns])  # noqa: T201  # what the product shows
            conversation.save(folder / "again")
        except DiffusionGPTError as error:
            if not error.hint or len(str(error)) > 5_000:
                raise AssertionError(f"no hint, or no end: {str(error)[:200]}") from None
    if rng.random() < 0.2:
        call(folder, "chat", "--resume", str(file), "--out", str(folder / "out"), "--zoo", "tiny", "--json")


@cache
def _honest() -> Path:
    """A folder with a conversation of two turns."""
    from diffusiongpt.settings import load_settings
    from diffusiongpt.studio import DiffusionGPT

    place = Path(mkdtemp())
    settings = load_settings(home=place / "home", hub_cache=place / "hub", device="cpu")
    with DiffusionGPT("tiny", settings=settings) as studio:
        conversation = studio.conversation()
        conversation.say("a pixel art fish", seed=1, num_inference_steps=1)
        conversation.say("but blue")
        conversation.save(place / "talk.json")
    shutil.rmtree(place / "home", ignore_errors=True)
    return place


def _copy(folder: Path) -> tuple[Path, dict[str, Any]]:
    shutil.copytree(_honest(), folder / "given")
    file = folder / "given" / "talk.json"
    return file, json.loads(file.read_text(encoding="utf-8"))


def _values(folder: Path, rng: random.Random) -> Path:
    file, content = _copy(folder)
    file.write_bytes(as_text(spoilt(content, rng, rng.randint(1, 3)), rng))
    return file


def _pictures(folder: Path, rng: random.Random) -> Path:
    """Pictures with other bytes, or none."""
    file, content = _copy(folder)
    for picture in (file.parent / content["pictures_in"]).iterdir():
        data = bytearray(picture.read_bytes())
        for _ in range(rng.randint(1, 30)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        how = rng.random()
        if how < 0.7:
            picture.write_bytes(data if how < 0.5 else data[: rng.randrange(len(data))])
        else:
            picture.unlink()
            if how > 0.8:
                os.mkfifo(picture)
    return file


def _places(folder: Path, rng: random.Random) -> Path:
    """Links and names that lead elsewhere."""
    file, content = _copy(folder)
    outside = folder / "outside"
    shutil.copytree(file.parent / content["pictures_in"], outside)
    pictures = file.parent / content["pictures_in"]
    how = rng.randrange(5)
    if how == 0:
        shutil.rmtree(pictures)
        pictures.symlink_to(outside)
    elif how == 1:
        for picture in [*pictures.iterdir()]:
            picture.unlink()
            picture.symlink_to(outside / picture.name)
    elif how == 2:
        content["pictures_in"] = rng.choice(("..", ".", "../outside", str(outside), "", "a\0b", "talk.json"))
    elif how == 3:
        content["turns"][0]["pictures"] = [rng.choice(("..", ".", "/dev/zero", "../../outside/x.png", "CON", "a:b"))]
    else:
        file.unlink()
        target = rng.choice((outside, Path("/dev/zero"), Path("/proc/self/mem"), file))
        file.symlink_to(target)
        return file
    file.write_text(json.dumps(content), encoding="utf-8")
    return file


def _many(folder: Path, rng: random.Random) -> Path:
    """One picture a thousand times, or turns without end."""
    file, content = _copy(folder)
    turns = content["turns"]
    if rng.random() < 0.7:
        _enlarge(file.parent / content["pictures_in"] / turns[0]["pictures"][0], rng.choice((512, 4_096)))
        for turn in turns:
            turn["pictures"] = turns[0]["pictures"] * rng.choice((1, 64, 65))
    # piece by piece, since the memory of this process is what is judged
    before, after = json.dumps({**content, "turns": "HERE"}).split('"HERE"')
    some = json.dumps(turns)[1:-1]
    with file.open("w", encoding="utf-8") as out:
        out.write(f"{before}[{some}")
        for _ in range(rng.choice((0, 39, 599))):
            out.write(f", {some}")
        out.write(f"]{after}")
    return file


def _enlarge(path: Path, side: int) -> None:
    """Give a PNG other pixels, of a square; packed row by row, since a whole picture would take as much as may be."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    from hostile.http_requests import png

    kept = PngInfo()
    with Image.open(path) as small:
        for name, text in small.info.items():
            if isinstance(text, str):
                kept.add_itxt(name, text)
    dot = BytesIO()
    Image.new("RGB", (1, 1)).save(dot, "PNG", pnginfo=kept)
    large = png(side, side, bytes(3 * side + 1), side)
    # signature, header, texts, pixels
    texts = dot.getvalue()[33 : dot.getvalue().index(b"IDAT") - 4]
    path.write_bytes(large[:33] + texts + large[33:])
