"""What a real Ray adds to a picture, loses when replicas die, and gains from a second one: tiny zoo, on processors.

    python benchmarks/fleet_real.py                     # all figures, some ten minutes
    python benchmarks/fleet_real.py --only throughput    # three minutes on an idle machine

The parts are faults, overhead and throughput. What is compared runs in alternation, since the machine may be busy with
other work, of which the first line says how much. Exits with 1 if an answer was lost, wrong, or came twice.
"""

from __future__ import annotations

import argparse
import base64
import json
import logging
import os
import signal
import socket
import sys
import tempfile
import warnings
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from io import BytesIO
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from time import monotonic, perf_counter, sleep
from typing import Any

import httpx
import numpy as np
import psutil
from PIL import Image
from serve import served

PROMPTS = ("a red heart", "a blue star, oil painting", "a green fish, pixel art", "a yellow tree, pencil sketch")
SEEDS = 8
"""Of each prompt: so many pictures that answers are compared with."""

IDLE_S = 10.0
"""Seconds in which nothing is asked for, to see what Ray does by itself."""

CLIENTS = 8
"""Of the part throughput."""

CALL_BYTES, PICTURE_BYTES, ANSWER_BYTES = 2_000, 13_000, 25_000
"""What goes to a replica and comes back for a picture of the tiny zoo, and the answer with it."""

PATH = "/v1/images/generations"


@contextmanager
def fleets(**replicas: int) -> Iterator[str]:
    """One Ray with a fleet under each name, of so many replicas; yields the address of the proxy."""
    folder = tempfile.TemporaryDirectory()
    os.environ |= {
        "DIFFUSIONGPT_HOME": folder.name,
        "DIFFUSIONGPT_SERVE_LOG": "off",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    }
    warnings.simplefilter("ignore")
    import ray
    from ray import serve
    from ray.serve.config import HTTPOptions

    from diffusiongpt.apps.ray_serve import fleet

    with folder, socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
        free.close()
        # more than there are, because what is compared is idle in turn
        own = {"address": "local", "include_dashboard": False}
        ray.init(num_cpus=16, logging_level=logging.ERROR, log_to_driver=False, **own)
        try:
            serve.start(http_options=HTTPOptions(host="127.0.0.1", port=port))
            for name, count in replicas.items():
                serve.run(fleet(replicas=count, zoo="tiny"), name=name, route_prefix=f"/{name}")
            yield f"http://127.0.0.1:{port}"
        finally:
            serve.shutdown()
            ray.shutdown()  # type: ignore[no-untyped-call]


def body_of(number: int) -> dict[str, Any]:
    """A request; there are `SEEDS` of each prompt."""
    return {"prompt": PROMPTS[number % len(PROMPTS)], "seed": number // len(PROMPTS) % SEEDS}


def pixels(answer: dict[str, Any]) -> bytes:
    """What the one picture of an answer shows."""
    (only,) = answer["data"]
    with Image.open(BytesIO(base64.b64decode(only["b64_json"]))) as image:
        return image.tobytes()


def replicas() -> list[psutil.Process]:
    """Processes of this Ray that draw."""
    below = psutil.Process().children(recursive=True)
    return [one for one in below if "Drawer" in one.name()]


def faults(requests: int, every_s: float, rate: float) -> dict[str, object]:
    """Answers that were lost, came twice or show something else than one machine draws, while replicas are killed."""
    from diffusiongpt import DiffusionGPT

    with DiffusionGPT("tiny", device="cpu") as studio:
        wanted = [studio.route_and_generate(**body_of(at)).image.tobytes() for at in range(len(PROMPTS) * SEEDS)]
    with fleets(three=3) as address, httpx.Client(base_url=address, timeout=300) as client:
        begin = monotonic()

        def draw(number: int) -> tuple[float, httpx.Response]:
            sleep(max(0.0, begin + number / rate - monotonic()))
            sent = monotonic()
            answer = client.post(f"/three{PATH}", json=body_of(number))
            return monotonic() - sent, answer

        with ThreadPoolExecutor(16) as threads:
            answers = [threads.submit(draw, number) for number in range(requests)]
            killed = 0
            while not all(one.done() for one in answers):
                sleep(0.1)
                if monotonic() - begin > every_s * (killed + 1) and (there := replicas()):
                    os.kill(there[killed % len(there)].pid, signal.SIGKILL)
                    killed += 1
        got = [answer.result() for answer in answers]
    right = [answer for _, answer in got if answer.status_code == 200]
    seen = [one["diffusiongpt"]["ballot"] for answer in right for one in answer.json()["data"]]
    wrong = [
        number
        for number, (_, answer) in enumerate(got)
        if answer.status_code == 200 and pixels(answer.json()) != wanted[number % len(wanted)]
    ]
    return {
        "requests": requests,
        "replicas_killed": killed,
        "lost": requests - len(right),
        "doubled": len(seen) - len(set(seen)) + len(seen) - len(right),
        "wrong_pixels": len(wrong),
        "seconds_median": round(median(taken for taken, _ in got), 2),
        "seconds_most": round(max(taken for taken, _ in got), 2),
    }


def overhead(pairs: int) -> dict[str, object]:
    """Milliseconds that a picture takes longer through a fleet than from the server of one machine, alternately.

    `bare_ms` is what Ray itself takes for as many bytes by the same way, with nothing of ours.
    """
    outside: dict[str, list[float]] = {"server": [], "fleet": []}
    whole: dict[str, list[float]] = {"server": [], "fleet": [], "bare": []}
    with served("tiny") as server, fleets(one=1) as address, httpx.Client(timeout=300) as client:
        _run_bare()
        for number in range(pairs + 5):
            for name, url in (("server", server.url), ("fleet", f"{address}/one")):
                begin = perf_counter()
                answer = client.post(f"{url}{PATH}", json=body_of(number)).raise_for_status()
                taken = perf_counter() - begin
                whole[name].append(1000 * taken)
                drawn = answer.json()["data"][0]["diffusiongpt"]["timings"]["draw"]
                outside[name].append(1000 * (taken - drawn))
            begin = perf_counter()
            client.post(f"{address}/bare", json=body_of(number)).raise_for_status()
            whole["bare"].append(1000 * (perf_counter() - begin))
    # the first ones load what the others find
    added = [there - here for here, there in zip(outside["server"][5:], outside["fleet"][5:], strict=True)]
    return {
        **{f"{name}_ms": round(median(times[5:]), 1) for name, times in whole.items()},
        **{f"{name}_outside_the_drawing_ms": round(median(times[5:]), 1) for name, times in outside.items()},
        "added_ms": round(median(added), 1),
    }


def _run_bare() -> None:
    """Serve what a fleet is to Ray: a proxy, a deployment that takes HTTP, and one behind it that streams."""
    from ray import serve
    from starlette.responses import Response

    class Behind:
        """Takes the place of a replica."""

        async def draw(self, call: bytes) -> AsyncIterator[bytes]:
            """As many bytes as a picture of the tiny zoo."""
            del call
            yield bytes(PICTURE_BYTES)

    class Before:
        """Takes the place of the server in front."""

        def __init__(self, behind: Any) -> None:
            self._behind = behind.options(stream=True)

        async def __call__(self, request: Any) -> Response:
            """As many bytes as an answer with that picture."""
            await request.body()
            async for _ in self._behind.draw.remote(bytes(CALL_BYTES)):
                pass
            return Response(bytes(ANSWER_BYTES))

    behind = serve.deployment(Behind).bind()
    serve.run(serve.deployment(Before).bind(behind), name="bare", route_prefix="/bare")


def throughput(rounds: int, requests: int, steps: int) -> dict[str, object]:
    """Pictures a second with one replica and with two, in alternating rounds of requests from eight clients.

    What the machine gives is in the rounds between: two processes that share nothing, against one of them. Where other
    work takes the cores, none of these rates says much. `ratio_by_processor` is what two idle cores would give: one
    replica keeps one of them, and two share both with the server, the proxy and these clients, and with what Ray does
    while nothing is asked for.
    """
    rates: dict[str, list[float]] = {"one": [], "two": [], "process": [], "processes": []}
    spent, idle, wall = np.zeros(2), 0.0, 0.0
    # more steps than people take with these models, since a picture of a larger one takes a second or more
    asked = {"num_inference_steps": steps}
    with ExitStack() as stack:
        address = stack.enter_context(fleets(one=1, two=2))
        client = stack.enter_context(httpx.Client(base_url=address, timeout=300))
        apart = [stack.enter_context(_process()) for _ in range(2)]

        def draw(name: str, number: int) -> float:
            client.post(f"/{name}{PATH}", json={**body_of(number), **asked}).raise_for_status()
            return perf_counter()

        for turn in range(rounds + 1):
            if turn == 1:
                before = _processor_s()
                sleep(IDLE_S)
                idle = float(sum(_processor_s() - before)) / IDLE_S
            for name in ("one", "two"):
                begin, before = perf_counter(), _processor_s()
                numbers = range(requests if turn else CLIENTS)  # the first round loads
                with ThreadPoolExecutor(CLIENTS) as threads:
                    ends = sorted(threads.map(lambda number, name=name: draw(name, number), numbers))
                if turn:
                    # from the first answer on, and until there are fewer requests than clients
                    rates[name].append((requests - CLIENTS) / (ends[-CLIENTS] - ends[0]))
                    spent, wall = spent + _processor_s() - before, wall + perf_counter() - begin
            for name, some in (("process", apart[:1]), ("processes", apart)):
                begin = perf_counter()
                count = requests // 2 if turn else 1
                for one in [one.submit(_draw_here, count, asked) for one in some]:
                    one.result()
                if turn:
                    rates[name].append(len(some) * count / (perf_counter() - begin))
    pictures = 2 * rounds * requests
    drew, rest = spent[0] / pictures, (spent[1] - idle * wall) / pictures
    return {
        **{f"{name}_per_s": round(median(all_of), 2) for name, all_of in rates.items()},
        "ratio": _ratio(rates["one"], rates["two"]),
        "ratio_of_processes": _ratio(rates["process"], rates["processes"]),
        "ratios": [round(two / one, 2) for one, two in zip(rates["one"], rates["two"], strict=True)],
        "drawing_processor_ms": round(1000 * drew, 1),
        "other_processor_ms": round(1000 * rest, 1),
        "idle_processors": round(idle, 3),
        "ratio_by_processor": round((2 - idle) * drew / (drew + rest), 2),
    }


def _ratio(one: Sequence[float], two: Sequence[float]) -> float:
    return round(median(more / less for less, more in zip(one, two, strict=True)), 2)


def _process() -> ProcessPoolExecutor:
    """A process of its own with a studio, which draws what it is asked for."""
    return ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=_open_studio)


def _open_studio() -> None:
    from diffusiongpt import DiffusionGPT

    global _studio  # noqa: PLW0603  # of a process that does nothing else
    _studio = DiffusionGPT("tiny", device="cpu")


def _draw_here(requests: int, asked: dict[str, Any]) -> None:
    for number in range(requests):
        _studio.route_and_generate(**{**body_of(number), **asked})


def _processor_s() -> np.ndarray:
    """Seconds of processors that drawing has taken, and all else of this benchmark."""
    spent = [0.0, 0.0]
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        with suppress(psutil.Error):
            times = process.cpu_times()
            spent[0 if "Drawer" in process.name() else 1] += times.user + times.system
    return np.array(spent)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the figures; 1 if an answer was lost, wrong, or came twice."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=["faults", "overhead", "throughput"])
    parser.add_argument("--requests", type=int, default=300, help="of the part with faults")
    parser.add_argument("--every", type=float, default=20.0, help="seconds between two replicas that are killed")
    parser.add_argument("--rate", type=float, default=3.0, help="requests a second of the part with faults")
    parser.add_argument("--pairs", type=int, default=60, help="of the part overhead")
    parser.add_argument("--rounds", type=int, default=2, help="of the part throughput")
    parser.add_argument("--pictures", type=int, default=16, help="of each round of the part throughput, more than 8")
    parser.add_argument("--steps", type=int, default=40, help="of each picture of the part throughput")
    said = parser.parse_args(argv)
    # of each process that draws; with more they take each other's cores
    os.environ["OMP_NUM_THREADS"] = "1"
    busy = psutil.cpu_percent(2.0)
    print(f"{os.cpu_count()} cores, {busy:.0f} % of them busy with other work before the start")
    parts = {
        "faults": lambda: faults(said.requests, said.every, said.rate),
        "overhead": lambda: overhead(said.pairs),
        "throughput": lambda: throughput(said.rounds, said.pictures, said.steps),
    }
    bad = 0
    for name in said.only or parts:
        found = parts[name]()
        print(f"{name}: {json.dumps(found)}", flush=True)
        bad += sum(int(str(found.get(one, 0))) for one in ("lost", "doubled", "wrong_pixels"))
    return int(bad > 0)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    sys.exit(main())
