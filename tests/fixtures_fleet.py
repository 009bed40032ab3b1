"""A real Ray for tests: its own processes and port, ended with it."""

from __future__ import annotations

import base64
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest
from PIL import Image

from diffusiongpt.zoo import Zoo

ON_RAY = [
    pytest.mark.slow,
    pytest.mark.xdist_group("ray"),
    # of Ray itself, which leaves sockets and files of its processes to the garbage collector
    pytest.mark.filterwarnings("ignore"),
]
"""Marks of tests on a real Ray; each file has a time limit of its own."""

PROMPT = "pixel art fish on a blue background"
APP = "diffusiongpt"


@dataclass
class RunningFleet:
    """A Ray that serves one fleet at a time.

    Attributes:
        address: Of its proxy.
    """

    address: str

    def deploy(self, *, zoo: str = "tiny", **options: Any) -> None:
        """Start a fleet, or change the one that runs, and wait until it alone is there and has reported."""
        from ray import serve

        from diffusiongpt.apps.ray_serve import fleet

        serve.run(fleet(zoo=zoo, **options), name=APP, route_prefix="/")
        version = Zoo.load(*zoo.split(",")).version
        wait_until(lambda: self.route()["zoo_version"] == version)
        self.wait_until_shown()

    def route(self) -> dict[str, Any]:
        """What the server would draw."""
        answer = httpx2.post(f"{self.address}/v1/route", json={"prompt": PROMPT}, timeout=400)
        assert answer.status_code == 200, answer.text
        result: dict[str, Any] = answer.json()
        return result

    def drawn(self, client: httpx2.Client | None = None, **body: Any) -> dict[str, Any]:
        """The answer to one request, of a client with a connection of its own or a new one."""
        body = {"prompt": PROMPT, "seed": 7, **body}
        post = client.post if client else httpx2.post
        answer = post(f"{self.address}/v1/images/generations", json=body, timeout=400)
        assert answer.status_code == 200, answer.text
        result: dict[str, Any] = answer.json()
        return result

    def replicas(self) -> list[dict[str, Any]]:
        """The replicas, as the server shows them."""
        shown: list[dict[str, Any]] = httpx2.get(f"{self.address}/v1/fleet", timeout=60).json()["replicas"]
        return shown

    def states(self) -> dict[str, dict[str, Any]]:
        """What each replica says of itself now, by its name in Ray; the server shows what they said a second ago."""
        import ray

        asked = {}
        for one in ray.util.list_named_actors(all_namespaces=True):
            if "Drawer" in one["name"]:
                with suppress(ValueError, ray.exceptions.RayError):  # it has ended since
                    actor = ray.get_actor(one["name"], namespace=one["namespace"])
                    asked[actor.record_routing_stats.remote()] = str(one["name"])
        # one that waits for room on a node has a name already, but answers nothing
        number = min(len(asked), len(processes()))
        there = ray.wait(list(asked), num_returns=number, timeout=10)[0] if number else []
        said = {}
        for one in there:
            with suppress(ray.exceptions.RayError):
                said[asked[one]] = ray.get(one)
        return said

    def wait_until_shown(self) -> None:
        """Wait until the replicas that run are those that the server shows: each has started and reported."""
        wait_until(lambda: sorted(one["pid"] for one in self.replicas()) == sorted(processes()))

    def wait_until_known(self) -> None:
        """Wait until the front knows of each replica what that says of itself now."""

        def known() -> bool:
            ended = {state["pid"]: sum(state["ended"].values()) for state in self.states().values()}
            shown = {one["pid"]: one["ended"] for one in self.replicas()}
            return ended == shown

        wait_until(known)


def pixels(answer: dict[str, Any]) -> bytes:
    """Of its picture, which carries its own time in its record."""
    return Image.open(BytesIO(base64.b64decode(answer["data"][0]["b64_json"]))).tobytes()


def processes(what: str = "Drawer") -> list[int]:
    """Processes of this test's Ray whose name has a word, such as those of the replicas that draw."""
    return [one.pid for one in psutil.Process().children(recursive=True) if what in name_of(one)]


def wait_until(is_so: Callable[[], object], seconds: float = 240) -> None:
    """Wait for an event."""
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.5)


@contextmanager
def environment_of_ray(home: Path, **more: str) -> Iterator[None]:
    """What Ray's processes find in their environment; as it was before at the end."""
    before = dict(os.environ)
    os.environ |= {
        "DIFFUSIONGPT_HOME": str(home),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
        "RAY_SERVE_FORCE_STOP_UNHEALTHY_REPLICAS": "1",  # as `serve --ray` has it
        "RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "1",
        "RAY_SERVE_HANDLE_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "1",
        "RAY_memory_monitor_refresh_ms": "0",  # or Ray ends replicas where other programs take the memory
        "OMP_NUM_THREADS": "1",
        **more,
    }
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def free_port() -> int:
    """A port that nothing listens at."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    return port


@contextmanager
def running_ray(home: Path, **environment: str) -> Iterator[RunningFleet]:
    """Ray and its proxy, on a free port."""
    import ray
    from ray import serve
    from ray.serve.config import HTTPOptions

    port = free_port()
    with environment_of_ray(home, **environment):
        try:
            _start_ray()
            serve.start(http_options=HTTPOptions(host="127.0.0.1", port=port))
            yield RunningFleet(f"http://127.0.0.1:{port}")
        finally:
            serve.shutdown()
            ray.shutdown()  # type: ignore[no-untyped-call]


def _start_ray() -> None:
    """Start Ray, again if it was late: it gives its own processes half a minute, which they need on a busy machine."""
    import ray

    tries_left = 3
    while not ray.is_initialized():
        tries_left -= 1
        try:
            own = {"address": "local", "include_dashboard": False}
            ray.init(num_cpus=8, logging_level=logging.ERROR, log_to_driver=False, **own)
        except Exception as error:  # Ray raises no other type
            if not tries_left or "timed out during startup" not in str(error):
                raise


def name_of(process: psutil.Process) -> str:
    """By which Ray says what a process does; empty of one that has ended."""
    try:
        return str(process.name())
    except psutil.Error:
        return ""
