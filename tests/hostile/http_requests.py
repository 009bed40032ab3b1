"""Requests to the server as strangers might send them: wrong types, sizes, depth, files, headers, and paths."""

from __future__ import annotations

import contextlib
import json
import random
import socket
import struct
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from hostile import Attack

KIND = "http request"
WAITS_S = 30.0
"""Seconds after which a request that has no answer counts as hanging."""

BASES: dict[str, dict[str, Any]] = {
    "/v1/images/generations": {"prompt": "", "model": "auto", "n": 1, "size": "64x64", "seed": 1, "draft": False},
    "/v1/images/edits": {"prompt": "", "image": "AAAA", "strength": 0.5},
    "/v1/route": {"prompt": "", "memory": "24GB", "max_price": 0, "experts": "tiny-oil", "prefer": "fast"},
    "/v1/compare": {"prompt": "", "k": 2, "voter": "me"},
    "/v1/votes": {"ballot": "x", "choice": "A", "rating": 1.0, "others": ["y"], "outcome": "win", "seconds": 1.5},
    "/v1/conversations": {"prompt": "", "seed": 1, "image": "AAAA", "mask_image": "AAAA"},
    "/v1/conversations/x": {"prompt": "", "mask_image": "AAAA"},
    "/sdapi/v1/txt2img": {"prompt": "", "steps": 20, "cfg_scale": 7, "seed": -1, "override_settings": {}},
    "/sdapi/v1/img2img": {"prompt": "", "init_images": ["AAAA"], "mask": "AAAA", "denoising_strength": 0.5},
    "/sdapi/v1/options": {"sd_model_checkpoint": "auto"},
}
_FIELDS = sorted(
    {name for body in BASES.values() for name in body}
    | {"width", "height", "mask_image", "stream", "finish", "timeout", "generator", "callback_on_step_end", "quality"}
    | {"response_format", "output_format", "output_compression", "partial_images", "expert", "explore", "batch_size"}
)

JUNK: tuple[Callable[[random.Random], str], ...] = (
    lambda rng: rng.choice(["null", "true", "false", "[]", "{}", '""', "0", "-1", "1.5", "NaN", "Infinity", "1e400"]),
    lambda rng: "9" * rng.choice([5, 20, 400, 5000]),
    lambda rng: "[" * (depth := rng.choice([5, 200, 20_000])) + "]" * depth,
    lambda rng: '{"a":' * (depth := rng.choice([5, 200, 20_000])) + "1" + "}" * depth,
    lambda rng: json.dumps("a" * rng.choice([100, 40_000, 300_000])),
    lambda rng: "[" + ",".join(["1"] * rng.choice([20, 5_000])) + "]",
    lambda rng: json.dumps({f"k{at}": at for at in range(rng.choice([3, 2_000]))}),
    lambda rng: rng.choice(['"\\ud800"', '"\\u0000"', '"\\u202e\\u001b[31m"', '"\ufffd"', '"\\udfff\\ud800"']),
    lambda rng: json.dumps(rng.choice(["../../etc/passwd", "/etc/passwd", "~/.ssh/id_rsa", "file:///etc/passwd"])),
    lambda rng: json.dumps(rng.choice(["http://169.254.169.254/", "data:image/png;base64,AAAA", "data:,", "data:x;x"])),
    lambda rng: json.dumps(
        rng.choice(["1x1", "0x0", "99999x99999", "-1x5", "x", "auto\n", "inf", "nan", "' OR 1=1 --"])
    ),
)


def requests(seed: int, count: int) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of so many requests, the same for the same seed."""
    rng = random.Random(seed)  # noqa: S311  # the same for the same seed
    makers = (_wrong_values, _wrong_values, _wrong_values, _broken_json, _form, _head, _path)
    for index in range(count):
        make = rng.choice(makers)
        what, raw = make(rng)
        yield f"{index} {what}", raw


def attacks(seed: int, count: int) -> Iterator[Attack]:
    """Each request, sent to a server of its own over experts that draw in no time."""
    for name, raw in requests(seed, count):
        yield Attack(KIND, name, partial(_meet, raw))


def _meet(raw: bytes, folder: Path) -> None:
    from fixtures_server import running

    from diffusiongpt.settings import load_settings
    from diffusiongpt.studio import DiffusionGPT

    zoo = folder / "zoo.yaml"
    experts = "".join(f"  - {{id: {name}, backend: fake, repo: me/{name}}}\n" for name in ("tiny-oil", "flat"))
    zoo.write_text(f"schema_version: 1\nexperts:\n{experts}", encoding="utf-8")
    settings = load_settings(home=folder / "home", hub_cache=folder / "hub")
    with DiffusionGPT(zoo, device="cpu", settings=settings) as studio, running(studio, body_timeout_s=1) as server:
        port = int(server.url.rpartition(":")[2])
        problem = problem_of(port, raw)
        assert problem is None, problem
        assert problem_of(port, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n") is None


def problem_of(port: int, raw: bytes) -> str | None:
    """What is wrong with the answer to a request; `None` if it is well: not a failure of the server, and readable."""
    try:
        return problem_in(raw, *exchange(port, raw))
    except TimeoutError:
        return "hangs"


def problem_in(raw: bytes, status: int | None, kind: str, body: bytes) -> str | None:
    """What is wrong with this answer to a request; `None` if it is well."""
    if status is None or (raw.startswith(b"HEAD") and status < 500):
        return None  # the connection was closed on what is not HTTP, or the answer to HEAD, which has no body
    if status >= 400 and "json" in kind:
        try:
            error = json.loads(body)["error"]
            readable = {"message", "type", "param", "code"} <= set(error)
        except (ValueError, KeyError, TypeError):
            readable = False
        if not readable:
            return f"{status} without an error object"
        return f"{status}: {error['message'][:200]}" if status == 500 else None
    # what is not HTTP at all is answered by the protocol, before there is an app to answer
    return f"{status} without an error object" if status >= 500 or (status >= 400 and status != 400) else None


def exchange(port: int, raw: bytes) -> tuple[int | None, str, bytes]:
    """Status, type and body of the answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=WAITS_S) as connection:
        with contextlib.suppress(OSError):  # refused before all was sent
            connection.sendall(raw)
        answer = b""
        try:
            while chunk := connection.recv(65_536):
                answer += chunk
        except ConnectionError:
            pass
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").splitlines()
    if not lines or not lines[0].startswith("HTTP/1.1 "):
        return None, "", b""
    kind = next((line for line in lines if line.lower().startswith("content-type:")), "")
    return int(lines[0].split()[1]), kind, body


def post(path: str, content: bytes, kind: str = "application/json", *more: str) -> bytes:
    """The bytes of a request with a body."""
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Type: {kind}", f"Content-Length: {len(content)}"]
    return "\r\n".join([*lines, *more, "Connection: close", "", ""]).encode("utf-8", "replace") + content


def _wrong_values(rng: random.Random) -> tuple[str, bytes]:
    path = rng.choice(list(BASES))
    fields = {name: json.dumps(value) for name, value in BASES[path].items()}
    if rng.random() < 0.05:
        fields["prompt"] = '"a red heart"'
    for name in rng.sample(_FIELDS, rng.randint(1, 3)):
        fields[name] = rng.choice(JUNK)(rng)
    text = "{" + ",".join(f"{json.dumps(name)}:{value}" for name, value in fields.items()) + "}"
    return f"values {path}", post(path, text.encode("utf-8", "surrogatepass"))


def _broken_json(rng: random.Random) -> tuple[str, bytes]:
    path = rng.choice(list(BASES))
    whole = json.dumps(BASES[path]).encode()
    content = rng.choice(
        [
            b"",
            whole[: rng.randrange(len(whole))],
            whole + whole,
            b"\xff\xfe" + whole,
            b"\xef\xbb\xbf" + whole,
            b"[" * 100_000,
            b'"text"',
            b"\x00" * 100,
            rng.randbytes(200),
        ]
    )
    kind = rng.choice(["application/json", "text/plain", "", "application/json; charset=\xff", "multipart/form-data"])
    return f"broken {path}", post(path, content, kind)


def png(width: int, height: int, data: bytes = b"\0" * 50, times: int = 1) -> bytes:
    """A PNG that says it has this size, whatever its data, which may come many times: they are never all in memory."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    packer = zlib.compressobj()
    packed = b"".join(packer.compress(data) for _ in range(times)) + packer.flush()
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def _form(rng: random.Random) -> tuple[str, bytes]:
    boundary = rng.choice(["x", "a" * 70, "b b", '"'])
    file = rng.choice(
        [
            b"",
            b"not a picture",
            b"GIF89a" + b"\0" * 20,
            b"%!PS-Adobe-3.0 EPSF\n",
            b"<svg xmlns='http://www.w3.org/2000/svg'/>",
            png(50_000, 50_000),
            png(8, 8),
            png(8, 8, b"\0" * (8 * 25)),
            png(0, 0),
            rng.randbytes(500),
        ]
    )
    names = [rng.choice(["image", "image[]", "image[0]", "mask", "prompt", "seed", "\u202e", "a" * 5_000])]
    names += ["image"] * rng.choice([0, 1, 40]) + [f"f{at}" for at in range(rng.choice([0, 3, 300]))]
    parts = []
    for name in names:
        filed = '; filename="../../x.png"\r\nContent-Type: image/png' if rng.random() < 0.7 else ""
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{filed}\r\n\r\n'
        parts.append(head.encode("utf-8") + file + b"\r\n")
    if rng.random() < 0.7:
        parts.append(f'--{boundary}\r\nContent-Disposition: form-data; name="prompt"\r\n\r\n\r\n'.encode())
    end = rng.choice([f"--{boundary}--\r\n", "", f"--{boundary}"]).encode()
    bare = "multipart/form-data"
    kind = rng.choice([f"{bare}; boundary={boundary}", bare, f"{bare}; boundary="])
    return "form", post("/v1/images/edits", b"".join(parts) + end, kind)


def _head(rng: random.Random) -> tuple[str, bytes]:
    body = b'{"prompt": ""}'
    path = rng.choice(["/v1/route", "/v1/images/generations", "/v1/models"])
    lines = rng.choice(
        [
            ["Content-Length: -1"],
            ["Content-Length: 5", "Content-Length: 9"],
            ["Content-Length: 99999999999999999999"],
            ["Content-Length: \u0661"],
            ["Transfer-Encoding: chunked"],
            ["Transfer-Encoding: chunked", "Content-Length: 4"],
            ["Transfer-Encoding: gzip"],
            ["Expect: 100-continue", f"Content-Length: {len(body)}"],
            [f"X-{at}: {'a' * 50}" for at in range(rng.choice([50, 2_000]))],
            [f"Authorization: {rng.choice(['Bearer', 'Basic ====', 'Basic ' + 'A' * 9000, 'Bearer ' + 'é' * 50])}"],
            [f"Origin: {rng.choice(['null', 'http://[', 'http://localhost', '%', 'x' * 5000])}"],
            [f"Host: {rng.choice(['[', 'a' * 3000, 'x:y:z', '', '@', 'localhost:99999999'])}"],
            ["Cookie: " + "a=b; " * 1_000],
        ]
    )
    method = rng.choice(["POST", "GET", "PUT", "DELETE", "OPTIONS", "HEAD", "PATCH", "TRACE", "CONNECT", "XYZ"])
    text = "\r\n".join([f"{method} {path} HTTP/1.1", "Host: localhost", "Content-Type: application/json", *lines])
    return f"head {method}", text.encode() + b"\r\nConnection: close\r\n\r\n" + body


def _path(rng: random.Random) -> tuple[str, bytes]:
    path = rng.choice(
        [
            "/v1/images/files/..%2f..%2fetc%2fpasswd",
            "/v1/images/files/%00.png",
            "/v1/models/" + "a" * 5_000,
            "/v1/models/%ff%fe",
            "/v1/models/..%2f..",
            "/v1/ranking?node=%00",
            "/v1/ranking?node=" + "a" * 9_000,
            "/v1/ranking?" + "&".join(f"a{at}=1" for at in range(500)),
            "/v1/queue/%e2%80%ae",
            "//evil.example/v1/models",
            "/%2e%2e/%2e%2e/etc/passwd",
            "/v1/conversations/..%2f..%2fetc/turns/last",
            "/v1/conversations/%00",
            "/v1/conversations/" + "a" * 5_000 + "/turns/last",
            "/v1/votes?voter=" + "%F0%9F" * 100,
            "http://evil.example/v1/models",
            "*",
            "/" + "a/" * 2_000,
        ]
    )
    method = rng.choice(["GET", "GET", "DELETE", "POST", "HEAD"])
    return f"path {method}", f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
