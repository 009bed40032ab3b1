"""A fleet on a real Ray: replicas that draw, one of which dies while it does."""

from __future__ import annotations

import base64
import os
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import Any

import httpx2
import psutil
import pytest
from PIL import Image

from diffusiongpt.errors import SettingsError
from diffusiongpt.studio import DiffusionGPT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("ray"),
    pytest.mark.timeout(600),
    # of Ray itself, which leaves sockets and files of its processes to the garbage collector
    pytest.mark.filterwarnings("ignore"),
]

PROMPT = "pixel art fish on a blue background"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A fleet of two replicas on the processor, with the tiny zoo."""
    before = dict(os.environ)
    os.environ |= {
        "DIFFUSIONGPT_HOME": str(tmp_path_factory.mktemp("home")),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
        "OMP_NUM_THREADS": "1",
    }
    import ray
    from ray import serve
    from ray.serve.config import HTTPOptions

    from diffusiongpt.apps.ray_serve import fleet

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    ray.init(num_cpus=6, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    try:
        serve.start(http_options=HTTPOptions(host="127.0.0.1", port=port))
        serve.run(fleet(replicas=2, zoo="tiny"), name="diffusiongpt", route_prefix="/")
        yield f"http://127.0.0.1:{port}"
    finally:
        serve.shutdown()
        ray.shutdown()
        os.environ.clear()
        os.environ.update(before)


def drawn(address: str, **body: Any) -> dict[str, Any]:
    """The answer to one request."""
    body = {"prompt": PROMPT, "seed": 7, **body}
    answer = httpx2.post(f"{address}/v1/images/generations", json=body, timeout=400)
    assert answer.status_code == 200, answer.text
    result: dict[str, Any] = answer.json()
    return result


def pixels(answer: dict[str, Any]) -> bytes:
    """Of its picture, which carries its own time in its record."""
    return Image.open(BytesIO(base64.b64decode(answer["data"][0]["b64_json"]))).tobytes()


def replicas() -> list[int]:
    """Process numbers of the replicas that draw."""
    return [one.pid for one in psutil.process_iter(["cmdline"]) if _draws(one.info["cmdline"])]


def _draws(command: list[str] | None) -> bool:
    return bool(command) and "ServeReplica:diffusiongpt:Drawer" in " ".join(command or ())


def test_the_picture_is_the_one_of_a_single_machine(address: str) -> None:
    """Through the fleet come the very bytes that this machine draws from the same seed, and the same record."""
    answer = drawn(address)
    with DiffusionGPT("tiny") as studio:
        here = studio.route_and_generate(PROMPT, seed=7)
    assert pixels(answer) == here.image.tobytes()
    assert answer["data"][0]["diffusiongpt"]["drawn_by"] == here.drawn_by


def received() -> list[int]:
    """Requests that each replica has had."""
    import ray

    names = [one for one in ray.util.list_named_actors(all_namespaces=True) if "Drawer" in one["name"]]
    names.sort(key=lambda one: str(one["name"]))
    actors = [ray.get_actor(one["name"], namespace=one["namespace"]) for one in names]
    stats = ray.get([one.record_routing_stats.remote() for one in actors])
    return [sum(one["received"].values()) for one in stats]


def test_requests_go_where_their_expert_is(address: str) -> None:
    """One after another, all for one expert are drawn by one replica; Ray's own choice would be by chance."""
    drawn(address, expert="tiny-oil")
    before = received()
    for seed in range(10):
        drawn(address, expert="tiny-oil", seed=seed)
    gained = [after - start for after, start in zip(received(), before, strict=True)]
    assert sorted(gained) == [0, 10]


def test_requests_are_drawn_by_others_when_a_replica_dies(address: str) -> None:
    """None is lost or answered twice, and each has the picture of its seed."""
    wanted = {seed: pixels(drawn(address, seed=seed)) for seed in range(3)}
    first = replicas()
    assert len(first) == 2
    with ThreadPoolExecutor(8) as threads:
        answers = [threads.submit(drawn, address, seed=number % 3) for number in range(24)]
        time.sleep(0.3)
        os.kill(first[0], signal.SIGKILL)
        got = [answer.result() for answer in answers]
    assert [pixels(one) for one in got] == [wanted[number % 3] for number in range(24)]
    for _ in range(120):
        if len(set(replicas()) - {first[0]}) == 2:
            break
        time.sleep(0.5)
    assert len(set(replicas()) - {first[0]}) == 2


def test_an_unknown_argument_is_refused_before_anything_starts() -> None:
    """The message names what there is."""
    from diffusiongpt.apps.ray_serve import fleet

    with pytest.raises(SettingsError, match="replica:") as error:
        fleet(replica=3)
    assert "replicas" in error.value.hint
