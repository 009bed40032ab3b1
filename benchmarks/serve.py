"""What the server adds to a picture, and how it behaves with many clients, on loopback with the tiny zoo.

    python benchmarks/serve.py             # all figures, with 10,000 hostile requests
    python benchmarks/serve.py --short     # fewer of everything

The server runs in a process of its own. `--only NAME`, which may be repeated, measures a part: overhead, many, gone,
route, hostile. Exits with 1 if an answer was wrong or lost, a turn was not freed, or a hostile request was not met.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from random import Random
from socket import create_connection
from time import perf_counter, process_time, sleep

import httpx
import numpy as np
import psutil
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

CLIENTS = 32
PROMPTS = ("a red heart", "a blue star, oil painting", "a green fish, pixel art", "a yellow tree, pencil sketch")
EXPERTS = 60


@dataclass(frozen=True)
class Server:
    """A server in a process of its own.

    Attributes:
        url: Its address.
        process: Its process.
    """

    url: str
    process: psutil.Process

    @property
    def port(self) -> int:
        """Its port."""
        return int(self.url.rpartition(":")[2])

    @property
    def megabytes(self) -> float:
        """Memory that it takes."""
        return float(self.process.memory_info().rss / 1e6)


@contextmanager
def served(zoo: str, **settings: object) -> Iterator[Server]:
    """`diffusiongpt serve` over a zoo, with a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        own = {f"DIFFUSIONGPT_SERVE_{name.upper()}": str(value) for name, value in settings.items()}
        env = {**os.environ, "DIFFUSIONGPT_HOME": folder, "PYTHONPATH": str(ROOT), **own}
        command = [sys.executable, "-m", "diffusiongpt", "serve", "--port", "0", "--device", "cpu", "--zoo", zoo]
        log = Path(folder) / "log"
        with log.open("wb") as file:
            process = subprocess.Popen(command, stderr=file, env=env)
        try:
            while not (found := re.search(r"http://[\w.:]+", log.read_text(errors="replace"))):
                if process.poll() is not None:
                    raise RuntimeError(log.read_text(errors="replace"))
                sleep(0.1)
            yield Server(found[0], psutil.Process(process.pid))
        finally:
            process.terminate()
            process.wait()


def pixels(encoded: str) -> bytes:
    """What a picture of an answer shows."""
    with Image.open(BytesIO(base64.b64decode(encoded))) as image:
        return image.tobytes()


def overhead(pairs: int) -> dict[str, float]:
    """Milliseconds that one client waits longer than one who calls a studio in this process: alternating calls.

    The processor's time includes that of the client, which is in the same process, and depends less on the load.
    """
    from fixtures_server import running

    from diffusiongpt import DiffusionGPT

    asked = {"num_inference_steps": 1, "expert": "tiny-oil", "width": 64, "height": 64}
    direct, over = [], []
    with (
        DiffusionGPT("tiny", device="cpu") as studio,
        running(studio) as server,
        httpx.Client(base_url=server.url, timeout=60) as client,
    ):
        for at in range(pairs + 5):
            body = {**asked, "prompt": PROMPTS[at % len(PROMPTS)], "seed": at}
            begin = _clocks()
            studio.route_and_generate(**body)  # type: ignore[arg-type]  # the fields are its arguments
            middle = _clocks()
            client.post("/v1/images/generations", json=body).raise_for_status()
            direct.append(middle - begin)
            over.append(_clocks() - middle)
    # the first ones load what the others find
    added = 1000 * (np.array(over) - np.array(direct))[5:]
    return {
        "studio_ms": round(1000 * float(np.median(direct[5:], axis=0)[0]), 1),
        "server_ms": round(1000 * float(np.median(over[5:], axis=0)[0]), 1),
        "added_ms": round(float(np.median(added, axis=0)[0]), 1),
        "added_cpu_ms": round(float(np.median(added, axis=0)[1]), 1),
    }


def _clocks() -> np.ndarray:
    return np.array([perf_counter(), process_time()])


def many(requests: int) -> dict[str, object]:
    """Wrong or lost answers of requests from many clients, and how much more memory the same once more takes."""
    rng = Random(1)
    asked = [(rng.choice(PROMPTS), rng.randrange(5)) for _ in range(requests)]
    with served("tiny") as server, httpx.Client(base_url=server.url, timeout=300) as client:

        def draw(one: tuple[str, int]) -> bytes:
            body = {"prompt": one[0], "seed": one[1], "num_inference_steps": 2}
            while (answer := client.post("/v1/images/generations", json=body)).status_code == 429:
                sleep(float(answer.headers["retry-after"]))
            return pixels(answer.raise_for_status().json()["data"][0]["b64_json"])

        expected = {one: draw(one) for one in sorted(set(asked))}
        rounds, outcomes = [], Counter[str]()
        for _ in range(3):
            with ThreadPoolExecutor(CLIENTS) as pool:
                drawn = [pool.submit(draw, one) for one in asked]
            for one, got in zip(asked, drawn, strict=True):
                outcomes["lost" if got.exception() else "right" if got.result() == expected[one] else "wrong"] += 1
            rounds.append(server.megabytes)
        growth = 100 * (rounds[-1] - rounds[-2]) / rounds[-2]
    return {
        "requests": 3 * requests,
        "wrong": outcomes["wrong"],
        "lost": outcomes["lost"],
        "megabytes": [round(one) for one in rounds],
        "growth_percent": round(growth, 2),
    }


def gone(clients: int) -> dict[str, float]:
    """Share of clients that hang up while their picture is drawn whose turn is free within a step or two."""
    waits, freed = [], 0
    content = json.dumps({"prompt": PROMPTS[1], "num_inference_steps": 1000}).encode()
    head = "POST /v1/images/generations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    with served("tiny") as server, httpx.Client(base_url=server.url, timeout=60) as client:
        client.post("/v1/images/generations", json={"prompt": PROMPTS[1]}).raise_for_status()
        steps = []
        for _ in range(clients):
            with create_connection(("127.0.0.1", server.port)) as connection:
                connection.sendall(head.encode() + f"Content-Length: {len(content)}\r\n\r\n".encode() + content)
                while not (mine := client.get("/v1/queue").json()["mine"]) or mine[0]["done"] < 5:
                    sleep(0.01)
                before, begin = mine[0]["done"], perf_counter()
                sleep(0.2)
                steps.append((perf_counter() - begin) / (client.get("/v1/queue").json()["mine"][0]["done"] - before))
            begin = perf_counter()
            while client.get("/v1/queue").json()["drawing"]:
                sleep(0.002)
            waits.append(perf_counter() - begin)
        step = float(np.median(steps))
        # to ask the server whether the turn is free takes a few milliseconds as well
        freed = sum(wait < 2 * step + 0.1 for wait in waits)
    return {
        "clients": clients,
        "freed_percent": 100 * freed / clients,
        "step_ms": round(1000 * step, 1),
        "free_after_ms": round(1000 * float(np.median(waits)), 1),
        "longest_ms": round(1000 * max(waits), 1),
    }


def route(seconds: float) -> dict[str, object]:
    """Milliseconds of `/v1/route` over 60 experts: 32 clients that each ask once a second, and as fast as they can."""
    with tempfile.TemporaryDirectory() as folder:
        zoo = _zoo_of(EXPERTS, Path(folder))
        with served(zoo) as server, httpx.Client(base_url=server.url, timeout=60) as client:
            listed = len(client.get("/v1/experts").json()["data"])
            for at in range(30):
                _plan(client, at)
            paced = _asked_by_all(client, seconds, pause_s=1.0)
            rushed = _asked_by_all(client, seconds / 2, pause_s=0.0)
    return {
        "experts": listed,
        "paced_p50_ms": _percentile(paced, 50),
        "paced_p95_ms": _percentile(paced, 95),
        "rushed_p95_ms": _percentile(rushed, 95),
        "rushed_per_second": round(2 * len(rushed) / seconds, 1),
    }


def _zoo_of(count: int, folder: Path) -> str:
    """The first experts of the default zoo as a zoo file."""
    import yaml

    from diffusiongpt.zoo import Zoo

    experts = [one for one in Zoo.load("default").values() if one.base_expert is None][:count]
    entries = [one.model_dump(mode="json", exclude_defaults=True) for one in experts]
    file = folder / "sixty.yaml"
    file.write_text(yaml.safe_dump({"schema_version": 1, "experts": entries}), encoding="utf-8")
    return str(file)


def _plan(client: httpx.Client, at: int) -> float:
    body = {"prompt": f"{PROMPTS[at % len(PROMPTS)]}, number {at}", "memory": "24GB"}
    begin = perf_counter()
    client.post("/v1/route", json=body).raise_for_status()
    return perf_counter() - begin


def _asked_by_all(client: httpx.Client, seconds: float, *, pause_s: float) -> list[float]:
    """Seconds of the answers that all clients get, each at a time of its own."""
    end = perf_counter() + seconds

    def ask(who: int) -> list[float]:
        rng, took = Random(who), []
        sleep(rng.random() * pause_s)
        while perf_counter() < end:
            took.append(_plan(client, rng.randrange(10**6)))
            sleep(max(0.0, pause_s - took[-1]))
        return took

    with ThreadPoolExecutor(CLIENTS) as pool:
        return [one for some in pool.map(ask, range(CLIENTS)) for one in some]


def _percentile(seconds: Sequence[float], share: int) -> float:
    return round(1000 * float(np.percentile(seconds, share)), 1)


def hostile(count: int) -> dict[str, object]:
    """Requests of strangers that crash the server, fail without an error object, or hang."""
    from hostile.http_requests import problem_of, requests

    # some of them are drawings that would rightly take minutes
    with served("tiny", body_timeout_s=2, timeout_s=10, log="off") as server:
        begin = perf_counter()
        with ThreadPoolExecutor(16) as pool:
            raws = (raw for _, raw in requests(7, count))
            problems = Counter(pool.map(partial(problem_of, server.port), raws))
        alive = httpx.get(f"{server.url}/healthz").status_code == 200
    met = problems.pop(None, 0)
    return {
        "requests": count,
        "met": met,
        "problems": dict(problems.most_common(5)),
        "alive": alive,
        "per_second": round(count / (perf_counter() - begin)),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="fewer of everything")
    parser.add_argument("--only", action="append", help="measure this part alone")
    asked = parser.parse_args()
    short = asked.short
    parts = {
        "overhead": partial(overhead, 20 if short else 100),
        "many": partial(many, 64 if short else 200),
        "gone": partial(gone, 5 if short else 20),
        "route": partial(route, 6 if short else 20),
        "hostile": partial(hostile, 500 if short else 10_000),
    }
    print(f"load of this machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    bad = False
    for name in asked.only or parts:
        figures = parts[name]()
        print(f"{name:<9}", ", ".join(f"{key} {value}" for key, value in figures.items()), flush=True)
        bad |= bool(figures.get("wrong") or figures.get("lost") or figures.get("problems"))
        bad |= figures.get("alive") is False or figures.get("freed_percent", 100) != 100
    sys.exit(bad)


if __name__ == "__main__":
    main()
