"""Conversations over HTTP as strangers might hold them: odd turns, ids of others, turns without end, many at a time."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

from hostile import Attack
from hostile.http_requests import BASES, JUNK, exchange, png, post, problem_in, problem_of

KIND = "conversation over HTTP"
PATH = "/v1/conversations"
IDS = (
    "", "x", ".", "..", "%2e%2e", "%00", "%ff", "a" * 5_000, "%F0%9F%A6%8A", "..%2f..%2fetc%2fpasswd", "turns", "*",
    "%s", "turns/last", "?a=b", "#", "%0d%0aX-A:%20b",
)  # fmt: skip


def attacks(seed: int, count: int) -> Iterator[Attack]:
    """See `hostile`."""
    makers = (_turns, _turns, _ids, _pictures, _many, _at_once)
    for number in range(count):
        maker = makers[number % len(makers)]
        yield Attack(KIND, f"{maker.__name__[1:]} {number}", partial(_meet, maker, f"{seed} {KIND} {number}"))


class _Server:
    """What an attack does with a server: send, and hold its answers to what they have to be."""

    def __init__(self, port: int) -> None:
        self.port = port

    def send(self, method: str, path: str, body: bytes | None = None) -> tuple[int | None, dict[str, Any]]:
        """Status and object of an answer, which is none of a failure of the server, and readable."""
        raw = post(path, body) if body is not None else b"POST %s HTTP/1.1\r\n" % path.encode()
        if body is None:
            raw += b"Host: localhost\r\nConnection: close\r\n\r\n"
        raw = raw.replace(b"POST", method.encode(), 1)
        status, kind, content = exchange(self.port, raw)
        problem = problem_in(raw, status, kind, content)
        assert problem is None, f"{method} {path[:60]}: {problem}"
        try:
            return status, json.loads(content)
        except ValueError:
            return status, {}

    def begin(self, **body: Any) -> str:
        """The id of a new conversation."""
        status, _, content = exchange(self.port, post(PATH, json.dumps({"prompt": "a fox", **body}).encode()))
        assert status == 200, content[:300]
        return str(json.loads(content)["diffusiongpt"]["conversation"])


def _meet(maker: Callable[[_Server, random.Random], None], seed: str, folder: Path) -> None:
    from fixtures_server import running

    from diffusiongpt.settings import load_settings
    from diffusiongpt.studio import DiffusionGPT

    zoo = folder / "zoo.yaml"
    experts = "".join(f"  - {{id: {name}, backend: fake, repo: me/{name}}}\n" for name in ("tiny-oil", "flat"))
    zoo.write_text(f"schema_version: 1\nexperts:\n{experts}", encoding="utf-8")
    settings = load_settings(home=folder / "home", hub_cache=folder / "hub")
    with DiffusionGPT(zoo, device="cpu", settings=settings) as studio, running(studio, body_timeout_s=1) as server:
        one = _Server(int(server.url.rpartition(":")[2]))
        maker(one, random.Random(seed))  # noqa: S311  # a mess, not a secret
        name = one.begin()
        status, said = one.send("POST", f"{PATH}/{name}", b'{"prompt": "but blue"}')
        assert status == 200, said


def _turns(server: _Server, rng: random.Random) -> None:
    """Turns whose fields are of any kind, after a sound one."""
    name = server.begin()
    for _ in range(4):
        fields = {key: json.dumps(value) for key, value in BASES["/v1/conversations/x"].items()}
        fields["prompt"] = rng.choice(
            ('"but blue"', '"undo"', '"the first one"', '"why?"', '"draw a fox, a cat and so on"')
        )
        for key in rng.sample(("prompt", "image", "mask_image", "n", "size", "seed", "model", "expert", "strength"), 2):
            fields[key] = rng.choice(JUNK)(rng)
        text = "{" + ",".join(f"{json.dumps(key)}:{value}" for key, value in fields.items()) + "}"
        server.send("POST", f"{PATH}/{name}", text.encode("utf-8", "surrogatepass"))


def _ids(server: _Server, rng: random.Random) -> None:
    """Conversations that are not there, with every method."""
    name = server.begin()
    for _ in range(8):
        other = rng.choice((*IDS, name.upper(), name[:-1], name + " ", name + "\u0000"))
        path = f"{PATH}/{other}".replace(" ", "%20").replace("\0", "%00") + rng.choice(("", "", "/turns/last", "/"))
        method = rng.choice(("GET", "POST", "DELETE", "PUT", "PATCH", "HEAD"))
        server.send(method, path, rng.choice((None, b"{}", b'{"prompt": "x"}')))
    server.send("DELETE", f"{PATH}/{name}/turns/last")
    server.send("DELETE", f"{PATH}/{name}/turns/last")
    server.send("POST", f"{PATH}/{name}", b'{"prompt": "but blue"}')
    server.send("DELETE", f"{PATH}/{name}")
    status, _ = server.send("POST", f"{PATH}/{name}", b'{"prompt": "but blue"}')
    assert status == 404, status


def _pictures(server: _Server, rng: random.Random) -> None:
    """Pictures and masks that are none, or of another size, or bombs."""
    from base64 import b64encode

    name = server.begin()
    files = (
        b"", b"GIF89a", b"%!PS-Adobe-3.0 EPSF\n", png(50_000, 50_000), png(8, 8), png(8, 8, b"\0" * (8 * 25)),
        png(0, 0), png(4_000, 4_000, b"\0" * 12_001, 4_000), png(4_000, 3_200, b"\0" * 12_001, 3_200),
    )  # fmt: skip
    for _ in range(3):
        said = b64encode(rng.choice(files)).decode()
        said = rng.choice((said, f"data:image/png;base64,{said}", said[:-1], f"http://169.254.169.254/{said[:9]}"))
        body = {"prompt": "make it blue", rng.choice(("mask_image", "image")): said}
        server.send("POST", f"{PATH}/{rng.choice((name, ''))}".rstrip("/"), json.dumps(body).encode())


def _many(server: _Server, rng: random.Random) -> None:
    """Turns, or conversations, without end."""
    name = server.begin(n=rng.choice((1, 4)))
    if rng.random() < 0.5:
        last: int | None = 200
        for number in range(105):
            last, _ = server.send("POST", f"{PATH}/{name}", json.dumps({"prompt": f"a fox {number}"}).encode())
        assert last == 400, f"turn 210 is answered by {last}"
    else:
        for _ in range(30):
            server.begin()
        status, _ = server.send("POST", f"{PATH}/{name}", b'{"prompt": "but blue"}')
        assert status == 404, "more conversations than a client may have are kept"


def _at_once(server: _Server, rng: random.Random) -> None:
    """Turns, and ends, of one conversation at the same moment."""
    name = server.begin()
    problems: list[str] = []
    turn = post(f"{PATH}/{name}", b'{"prompt": "but blue"}')
    undo = f"DELETE {PATH}/{name}/turns/last HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
    end = undo.replace(b"/turns/last", b"")

    def send(raw: bytes) -> None:
        problem = problem_of(server.port, raw)
        if problem is not None:
            problems.append(problem)

    threads = [Thread(target=send, args=(raw,)) for raw in rng.choices((turn, undo, end), (6, 3, 1), k=12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems, problems[0]
