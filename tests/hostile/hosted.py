"""Services that lie: what one answers is a picture that was asked for, or an error of ours, and paid within limits.

Each attack answers the real `openai` client over HTTP with something generated. After it no other server has been
asked, the key is in no error, and no more was spent than the user allows.
"""

from __future__ import annotations

import base64
import json
import random
import struct
import traceback
import zlib
from contextlib import suppress
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from diffusiongpt.backends.hosted import Limits, OpenAIBackend
from diffusiongpt.drawing import Spending, pictures_of
from diffusiongpt.errors import DiffusionGPTError
from diffusiongpt.flow import Call
from diffusiongpt.settings import load_settings
from diffusiongpt.testing import LocalImages
from diffusiongpt.zoo import Expert, Price
from hostile import Attack
from hostile._clock import CLOCK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Answer = Callable[..., None]
    Case = Callable[[random.Random], tuple[str, Answer]]


KIND = "hosted"

KEY = "sk-proj-this-goes-to-one-service"
HASTE_S = 1.0
LONGEST_S = 8.0
SIDE = 64
PRICE, LIMIT = 0.04, 0.2
STRANGE: tuple[Any, ...] = (None, 7, True, "", "x" * 5000, [], {}, [[]], 1e308, "\x1b]0;evil\x07", float("nan"))


def attacks(seed: int, count: int) -> Iterator[Attack]:
    """`count` different attacks, the same for the same seed."""
    rng = random.Random(seed)  # noqa: S311  # not a secret
    for number in range(count):
        name, answer = _CASES[number % len(_CASES)](rng)
        pictures = rng.choice((1, 1, 3))
        run = partial(_meet, answer=answer, pictures=pictures)
        yield Attack(kind=KIND, name=f"{name}, {pictures} asked for ({number})", run=run)


def _meet(folder: Path, answer: Answer, pictures: int) -> None:
    """Have pictures drawn by a service that gives this answer, and hold what must be true whatever it is."""
    expert = Expert(id="cloud", backend="openai", repo="openai/cloud", price=Price(usd=PRICE))
    with LocalImages() as images, LocalImages() as other:
        images.fail("custom", answer=partial(_quietly, answer, other))
        settings = load_settings(
            home=folder / "home", device="cpu", openai_base_url=images.url, openai_api_key=KEY, spend_per_run=LIMIT
        )
        spending = Spending(settings)
        call = Call(
            expert=expert,
            prompt="a fox",
            negative_prompt="",
            seeds=tuple(range(pictures)),
            arguments={"width": SIDE, "height": SIDE},
            meter=spending.run().meter(expert),
        )
        begin = CLOCK()
        failed: DiffusionGPTError | None = None
        try:
            drawing = pictures_of(call, OpenAIBackend(Limits(timeout_s=HASTE_S)).draw(call, settings))
            assert 0 < len(drawing.images) <= pictures, "not the number of pictures"
            assert all(image.getextrema() for image in drawing.images)
        except DiffusionGPTError as error:
            failed = error
        seconds = CLOCK() - begin
        seen = [*other.requests]
    assert not seen, "another server was asked"
    assert seconds < LONGEST_S, f"it took {seconds:.1f} s"
    assert spending.today() <= LIMIT + 1e-9, "the limit was crossed"
    if failed:
        shown = "".join(traceback.format_exception(failed))
        assert KEY not in shown, "the key is in the error"
        assert failed.hint, "the error does not say what to do"
        raise failed


def _quietly(answer: Answer, other: LocalImages, handler: Any) -> None:
    with suppress(OSError):  # the client has left
        answer(handler, other)


def _png(image: Image.Image) -> bytes:
    buffer = BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def _json(value: Any, status: int = 200) -> Answer:
    body = json.dumps(value).encode()

    def send(handler: Any, _other: Any) -> None:
        handler.head(status, "application/json", len(body))
        handler.wfile.write(body)

    return send


def _pictures(*raw: bytes) -> Answer:
    return _json({"created": 0, "data": [{"b64_json": base64.b64encode(one).decode()} for one in raw]})


def _shape(rng: random.Random) -> tuple[str, Answer]:
    one = rng.choice(STRANGE)
    value = rng.choice((one, {"data": one}, {"data": [one]}, {"data": [{"b64_json": one}]}, {"data": [{"url": one}]}))
    return f"shape {str(value)[:60]!r}", _json(value)


def _address(rng: random.Random) -> tuple[str, Answer]:
    place = rng.choice(("{url}/x.png", "//{host}/x.png", "file:///etc/passwd", "ftp://{host}/x", "DATA:image/png,{{}}"))
    name = rng.choice(("url", "b64_json"))

    def send(handler: Any, other: LocalImages) -> None:
        host = other.url.removeprefix("http://").removesuffix("/v1")
        _json({"data": [{name: place.format(url=other.url, host=host)}]})(handler, other)

    return f"{name} {place}", send


def _moved(rng: random.Random) -> tuple[str, Answer]:
    status = rng.choice((301, 302, 303, 307, 308))

    def send(handler: Any, other: LocalImages) -> None:
        handler.head(status, "text/plain", 0, Location=f"{other.url}/images/generations")

    return f"{status} to another host", send


def _bad_picture(rng: random.Random) -> tuple[str, Answer]:
    raw = bytearray(_png(Image.effect_noise((SIDE, SIDE), 60)))
    how = rng.choice(("cut", "flipped", "prefixed", "empty"))
    if how == "cut":
        raw = raw[: rng.randrange(1, len(raw))]
    elif how == "flipped":
        for _ in range(rng.randrange(1, 40)):
            raw[rng.randrange(len(raw))] = rng.randrange(256)
    elif how == "prefixed":
        raw = bytearray(rng.randbytes(20)) + raw
    else:
        raw = bytearray()
    return f"a picture that is {how}, {len(raw)} bytes", _pictures(bytes(raw))


def _bomb(rng: random.Random) -> tuple[str, Answer]:
    sides = ((60_000, 60_000), (2**31 - 1, 1), (0, 0), (8_192, 8_192), (2_048, 2_048), (1, 2**31 - 1))
    width, height = rng.choice(sides)
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, rng.choice((0, 2, 3, 6)), 0, 0, 0)
    data = b"IDAT" + zlib.compress(b"\0" * rng.choice((1, 20_000_000)))
    chunks = (struct.pack(">I", len(one) - 4) + one + struct.pack(">I", zlib.crc32(one)) for one in (head, data))
    return f"a picture that claims {width}x{height}", _pictures(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))


def _other_format(rng: random.Random) -> tuple[str, Answer]:
    kind = rng.choice(("GIF", "BMP", "TIFF", "EPS", "PDF", "ICO", "PPM"))
    buffer = BytesIO()
    Image.new("RGB", (SIDE, SIDE), "red").save(buffer, format=kind)
    return f"a picture as {kind}", _pictures(buffer.getvalue())


def _not_asked_for(rng: random.Random) -> tuple[str, Answer]:
    size = rng.choice(((SIDE, SIDE), (1, 1), (SIDE * 4, SIDE * 4), (SIDE, 1)))
    picture = Image.new(rng.choice(("RGB", "RGBA", "L", "1")), size, rng.choice((0, 1)))
    count = rng.choice((1, 2, 40))
    return f"{count} pictures of one colour and {size}", _pictures(*[_png(picture)] * count)


def _large(rng: random.Random) -> tuple[str, Answer]:
    size = rng.choice((1 << 20, 100 << 20, 1 << 40))
    chunked, filler = rng.random() < 0.5, rng.choice((b" ", b"A", b"["))
    head = b'{"data": [{"b64_json": "' if filler == b"A" else b""

    def pour(handler: Any, _other: Any) -> None:
        if chunked:
            handler.send_response(200)
            handler.send_header("Transfer-Encoding", "chunked")
            handler.end_headers()
        else:
            handler.head(200, "application/json", size)
        sent = 0
        if head:
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(head), head) if chunked else head)
        while sent < size and not handler.service.stopping.is_set():
            piece = filler * (1 << 20)
            handler.wfile.write(b"100000\r\n" + piece + b"\r\n" if chunked else piece)
            sent += 1 << 20
        handler.close_connection = True

    return f"{size >> 20} MB of {filler!r}, chunked={chunked}", pour


def _slow(rng: random.Random) -> tuple[str, Answer]:
    status = rng.choice((200, 400, 500))

    def drip(handler: Any, _other: Any) -> None:
        handler.head(status, "application/json", 1 << 30)
        while not handler.service.stopping.wait(0.05):
            handler.wfile.write(b"{")
            handler.wfile.flush()
        handler.close_connection = True

    return f"drips with {status}", drip


def _refusal(rng: random.Random) -> tuple[str, Answer]:
    code = rng.choice(("moderation_blocked", "content_filter", "insufficient_quota", None, 7, "x" * 5000))
    inner = {"error": {"code": code, "message": f"no, Key: Bearer {KEY}", "type": rng.choice((None, "safety", []))}}
    for _ in range(rng.randrange(4)):
        inner = {"error": {"message": json.dumps(inner), "code": rng.choice((None, 400, "400"))}}
    status = rng.choice((200, 400, 402, 403, 422, 429, 500, 502))
    return f"{status} with {str(inner)[:60]!r}", _json(inner, status)


def _noise(rng: random.Random) -> tuple[str, Answer]:
    body = rng.choice((rng.randbytes(500), b"<html>Sign in</html>", b"[" * 100_000, b"NaN", b'{"data": NaN}', b""))
    status = rng.choice((200, 204, 206, 400, 404, 418, 500, 599))

    def send(handler: Any, _other: Any) -> None:
        handler.head(status, "application/json", len(body))
        handler.wfile.write(body)

    return f"{status} with {body[:20]!r}", send


_CASES: tuple[Case, ...] = (
    _shape,
    _address,
    _moved,
    _bad_picture,
    _bomb,
    _other_format,
    _not_asked_for,
    _large,
    _slow,
    _refusal,
    _noise,
)
