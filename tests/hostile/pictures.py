"""Pictures of strangers: files that are none, headers that lie, records that do not hold together."""

from __future__ import annotations

import json
import os
import random
import struct
import zlib
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

from hostile import Attack
from hostile._command import call

KIND = "picture"
STRANGE: tuple[Any, ...] = (
    None,
    True,
    -1,
    10**30,
    1e308,
    float("nan"),
    float("inf"),
    "",
    "a\0b",
    "../../x",
    "\x1b]0;x\x07",
    "x" * 100_000,
    [],
    {},
    [[]] * 1_000,
    {"a": 1e308},
    ["x"] * 60_000,
    {str(n): 0.5 for n in range(10_000)},
)


def attacks(seed: int, count: int) -> Iterator[Attack]:
    """See `hostile`."""
    makers = (_forged, _forged, _forged, _damaged, _claims, _other_formats, _text, _special)
    for number in range(count):
        rng = random.Random(f"{seed} {KIND} {number}")  # noqa: S311  # a mess, not a secret
        maker = makers[number % len(makers)]
        yield Attack(KIND, f"{maker.__name__[1:]} {number}", partial(_meet, maker, rng))


def _meet(maker: Any, rng: random.Random, folder: Path) -> None:
    """Read it as a result, look at it, save it again, and vote on it."""
    from diffusiongpt.errors import DiffusionGPTError
    from diffusiongpt.pictures import Generation

    path = maker(folder, rng)
    try:
        read = Generation.from_file(path)
        print(repr(read), read.route.expert)  # noqa: T201  # what the product shows
        read._repr_html_()
        read.route.explain()
        read.save(folder / "again")
    except DiffusionGPTError as error:
        if not error.hint:
            raise AssertionError(f"no hint: {error}") from None
    as_json = ["--json"] if rng.random() < 0.5 else []
    call(folder, "vote", str(path), "--rating", "3", *as_json)


@cache
def _record() -> dict[str, Any]:
    """The record of a real picture of the tiny zoo."""
    import tempfile

    from diffusiongpt.pictures import shareable
    from diffusiongpt.settings import load_settings
    from diffusiongpt.studio import DiffusionGPT

    with tempfile.TemporaryDirectory() as home:
        settings = load_settings(home=Path(home), hub_cache=Path(home) / "hub", device="cpu")
        with DiffusionGPT("tiny", settings=settings) as studio:
            result = studio.route_and_generate("a pixel art fish", seed=1, num_inference_steps=1)
    data: dict[str, Any] = shareable(result.records[0]).model_dump(mode="json")
    return data


def _places(value: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if way:
        yield way
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield from _places(child, (*way, key))


def _png(path: Path, record: str | bytes, *, width: int = 8, height: int = 8, rows: bytes | None = None) -> Path:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    text = record if isinstance(record, bytes) else record.encode("utf-8", errors="surrogatepass")
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(rows or b"\0" * (height * (1 + 3 * width))))
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + head + chunk(b"iTXt", b"diffusiongpt\0\0\0\0\0" + text) + pixels + chunk(b"IEND", b"")
    )
    return path


def _forged(folder: Path, rng: random.Random) -> Path:
    data = json.loads(json.dumps(_record()))
    places = list(_places(data))
    for *way, last in rng.sample(places, rng.randint(1, 3)):
        place = data
        try:
            for part in way:
                place = place[part]
            place[last] = rng.choice(STRANGE)
        except (KeyError, IndexError, TypeError):  # inside what was replaced before
            continue
    return _png(folder / "forged.png", json.dumps(data))


def _damaged(folder: Path, rng: random.Random) -> Path:
    path = _png(folder / "damaged.png", json.dumps(_record()))
    data = bytearray(path.read_bytes())
    for _ in range(rng.randint(1, 20)):
        data[rng.randrange(len(data))] = rng.randrange(256)
    path.write_bytes(data[: rng.randint(1, len(data))] if rng.random() < 0.3 else data)
    return path


def _claims(folder: Path, rng: random.Random) -> Path:
    width, height = rng.choice(((13_000, 13_000), (2**31 - 1, 1), (1, 2**31 - 1), (0, 0), (100_000, 9), (8_193, 8_192)))
    return _png(folder / "large.png", json.dumps(_record()), width=width, height=height, rows=b"\0" * 100)


def _other_formats(folder: Path, rng: random.Random) -> Path:
    name = rng.choice(("fox.png", "fox.jpg", "fox.eps", "fox.webp"))
    heads = (
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        b"GIF89a",
        b"BM",
        b"II*\0",
        b"\xc5\xd0\xd3\xc6",
        b"<svg>",
        b"RIFF\xff\xff\xff\xffWEBPVP8 ",
        b"\xff\xd8\xff\xe0\0\x10JFIF",
        b"\0\0\1\0",
        b"8BPS",
        b"%PDF-1.7",
    )
    (folder / name).write_bytes(rng.choice(heads) + rng.randbytes(rng.randint(0, 5_000)))
    return folder / name


def _text(folder: Path, rng: random.Random) -> Path:
    text = rng.choice(
        (
            "[" * 1_000_000,
            '{"a":' * 300_000,
            "[" + "0," * 900_000 + "0]",
            "9" * 1_000_000,
            '"' + "\\u0000" * 500_000 + '"',
            '"' + 'a\\"' * 900_000,
            "x" * 5_000_000,
            "{}",
            "null",
            "\ud800",
            '{"version": 2}',
        )
    )
    return _png(folder / "text.png", text)


def _special(folder: Path, rng: random.Random) -> Path:
    path = folder / rng.choice(("a.png", "\x1b]0;x\x07.png", "\u202egnp.png", "[/b].png"))
    path.parent.mkdir(exist_ok=True)
    kind = rng.randrange(4)
    if kind == 0:
        os.mkfifo(path)
    elif kind == 1:
        path.symlink_to("/dev/zero")
    elif kind == 2:
        path.mkdir()
    return path
