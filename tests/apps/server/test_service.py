"""What makes it a service: hang-ups, a bounded and fair queue, limits, a stop that loses nothing, metrics, a log."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from fixtures_server import running, wait_until

from diffusiongpt.apps.server import ServerSettings, create_app
from diffusiongpt.errors import SettingsError
from diffusiongpt.settings import load_settings
from diffusiongpt.studio import DiffusionGPT
from diffusiongpt.testing import hub_zoo, serve_tiny_zoo

if TYPE_CHECKING:
    from fixtures_server import Running

SLOW: dict[str, Any] = {"prompt": "a red heart", "num_inference_steps": 1000, "model": "tiny-oil"}
"""A drawing that takes many seconds."""


@contextmanager
def slow_request(server: Running, path: str = "/v1/images/generations", **body: Any) -> Iterator[socket.socket]:
    """A connection whose request is being drawn; leaving the block hangs up."""
    host, port = server.url.removeprefix("http://").split(":")
    content = json.dumps({**SLOW, **body}).encode()
    before = len(server.service.jobs.of())
    with socket.create_connection((host, int(port))) as connection:
        head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        connection.sendall(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
        wait_until(lambda: len(server.service.jobs.of()) > before)
        yield connection


def is_drawing(server: Running) -> bool:
    """Whether a step was taken."""
    return any(job.phase == "draw" and job.done for job in server.service.jobs.of())


@pytest.mark.parametrize("body", [{}, {"stream": True}])
def test_a_client_that_hangs_up_frees_its_turn(server: Running, body: dict[str, Any]) -> None:
    """Within a step the device is free; the next request is drawn as if the first had not been."""
    with slow_request(server, **body):
        wait_until(lambda: is_drawing(server))
    left = monotonic()
    wait_until(lambda: not server.service.jobs.of())
    assert monotonic() - left < 2
    again = httpx.post(f"{server.url}/v1/images/generations", json={"prompt": "a red heart"}, timeout=30)
    assert again.status_code == 200


def test_a_client_that_hangs_up_while_it_waits_leaves_the_queue(server: Running) -> None:
    """The one that draws goes on."""
    with slow_request(server):
        wait_until(lambda: is_drawing(server))
        with slow_request(server):
            wait_until(lambda: len(server.service.jobs.of()) == 2)
        wait_until(lambda: len(server.service.jobs.of()) == 1)
        assert is_drawing(server)
    wait_until(lambda: not server.service.jobs.of())


def test_a_request_may_be_followed_and_ended_from_elsewhere(server: Running) -> None:
    """The queue says how far it is, in our words and in A1111's, and either ends it."""
    for end in ("delete", "interrupt"):
        with ThreadPoolExecutor(1) as pool:
            sent = pool.submit(httpx.post, f"{server.url}/v1/images/generations", json=SLOW, timeout=60)
            wait_until(lambda: is_drawing(server))
            (job,) = httpx.get(f"{server.url}/v1/queue").json()["mine"]
            assert (job["state"], job["phase"], job["total"]) == ("drawing", "draw", 1000)
            progress = httpx.get(f"{server.url}/sdapi/v1/progress").json()
            assert 0 < progress["progress"] < 1
            assert progress["state"]["sampling_steps"] == 1000
            if end == "delete":
                assert httpx.delete(f"{server.url}/v1/queue/{job['id']}").status_code == 200
            else:
                httpx.post(f"{server.url}/sdapi/v1/interrupt")
            answer = sent.result()
        assert answer.status_code == 409
        assert answer.json()["error"]["code"] == "interrupted"
    assert httpx.delete(f"{server.url}/v1/queue/never-was").status_code == 404


def test_a_full_queue_is_429_with_a_time_to_come_back(tiny_studio: DiffusionGPT) -> None:
    """One client may take three quarters of the places; all are refused when all are taken."""
    with running(tiny_studio, max_waiting=4, api_keys="key-number-one,key-number-two") as server:

        def headers(key: str) -> dict[str, str]:
            return {"authorization": f"Bearer {key}"}

        def draw(key: str, **body: Any) -> httpx.Response:
            sent = {**SLOW, **body}
            return httpx.post(f"{server.url}/v1/images/generations", json=sent, headers=headers(key), timeout=60)

        with ThreadPoolExecutor(8) as pool:
            mine = [pool.submit(draw, "key-number-one") for _ in range(3)]
            wait_until(lambda: len(server.service.jobs.of()) == 3)
            refused = draw("key-number-one")
            assert refused.status_code == 429
            assert int(refused.headers["retry-after"]) >= 1
            assert refused.json()["error"]["type"] == "rate_limit_error"
            other = pool.submit(draw, "key-number-two")
            wait_until(lambda: len(server.service.jobs.of()) == 4)
            assert draw("key-number-two").status_code == 429
            streamed = draw("key-number-two", stream=True)
            assert streamed.status_code == 429
            for key in ("key-number-one", "key-number-two"):
                httpx.post(f"{server.url}/sdapi/v1/interrupt", headers=headers(key))
            assert {one.result().status_code for one in (*mine, other)} == {409}


def test_the_device_is_shared_fairly_between_keys(tiny_studio: DiffusionGPT) -> None:
    """Who asks for one picture does not wait for all that another key has asked for before."""
    with running(tiny_studio, api_keys="key-number-one,key-number-two") as server:
        order: list[str] = []

        def draw(key: str) -> None:
            body = {**SLOW, "num_inference_steps": 20}
            headers = {"authorization": f"Bearer {key}"}
            httpx.post(f"{server.url}/v1/images/generations", json=body, headers=headers, timeout=60)
            order.append(key)

        with ThreadPoolExecutor(8) as pool:
            many = [pool.submit(draw, "key-number-one") for _ in range(5)]
            wait_until(lambda: len(server.service.jobs.of()) == 5)
            one = pool.submit(draw, "key-number-two")
            for sent in (*many, one):
                sent.result()
        assert order.index("key-number-two") < 4


def test_a_time_limit_ends_a_drawing(tiny_studio: DiffusionGPT) -> None:
    """The server's own, or a shorter one of the request; a longer one counts for nothing."""
    with running(tiny_studio, timeout_s=0.7) as server:
        for body in (SLOW, {**SLOW, "timeout": 100}):
            answer = httpx.post(f"{server.url}/v1/images/generations", json=body, timeout=60)
            assert answer.status_code == 504
            assert answer.json()["error"]["code"] == "stopped"
    with running(tiny_studio) as server:
        answer = httpx.post(f"{server.url}/v1/images/generations", json={**SLOW, "timeout": 0.3}, timeout=60)
        assert answer.status_code == 504


def test_a_body_has_a_size_and_a_time(tiny_studio: DiffusionGPT) -> None:
    """Larger ones are 413, whether or not they say how large they are; one that does not arrive is 408."""
    with running(tiny_studio, max_body_mb=0.01, body_timeout_s=0.5) as server:
        url = f"{server.url}/v1/images/generations"
        large = b'{"prompt": "' + b"a" * 20_000 + b'"}'
        stated = httpx.post(url, content=large, headers={"content-type": "application/json"})
        chunked = httpx.post(url, content=iter([large]), headers={"content-type": "application/json"})
        for answer in (stated, chunked):
            assert answer.status_code == 413
            assert answer.json()["error"]["code"] == "body_too_large"
        with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])), timeout=10) as connection:
            connection.sendall(
                b"POST /v1/route HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{"
            )
            assert b"408" in connection.recv(1000)


def test_no_toy_stands_in(tmp_path: Path, settings: Any) -> None:
    """Where nothing that was asked for can draw, a service says why, and the demonstration zoo stays out of it."""
    zoo = tmp_path / "far.yaml"
    zoo.write_text(
        "schema_version: 1\nexperts:\n  - {id: far, repo: someone/far, architecture: sd15, size_gb: 4}\n",
        encoding="utf-8",
    )
    own = load_settings(home=settings.home, hub_cache=settings.hub_cache, stand_in=False, offline=True)
    with DiffusionGPT(zoo, device="cpu", settings=own) as studio, running(studio) as server:
        answer = httpx.post(f"{server.url}/v1/images/generations", json={"prompt": "a fox"}, timeout=60)
    assert answer.status_code in (422, 503), answer.text
    assert "offline" in answer.text or "far" in answer.text


def test_a_pull_that_is_too_large_is_refused(tmp_path: Path) -> None:
    """Nothing is asked and nothing is pulled; the error says what would allow it."""
    with serve_tiny_zoo() as hub:
        own = load_settings(
            home=tmp_path / "home",
            hub_cache=tmp_path / "hub",
            hub_endpoint=hub.url,
            max_download_gb=0,
            stand_in=False,
        )
        with DiffusionGPT(hub_zoo(), device="cpu", settings=own) as studio, running(studio) as server:
            answer = httpx.post(f"{server.url}/v1/images/generations", json={"prompt": "a fox"}, timeout=60)
    assert answer.status_code == 403, answer.text
    assert answer.json()["error"]["code"] == "pull_too_large"
    assert "MAX_DOWNLOAD_GB" in answer.json()["error"]["message"]


def test_metrics_count_what_happened(tiny_studio: DiffusionGPT) -> None:
    """Requests by path and status, seconds by phase, pictures, votes, the queue and the cache."""
    with running(tiny_studio) as server:
        drawn = httpx.post(f"{server.url}/v1/images/generations", json={"prompt": "a red heart", "n": 2}, timeout=60)
        ballot = drawn.json()["diffusiongpt"]["ballot"]
        assert httpx.post(f"{server.url}/v1/votes", json={"ballot": ballot, "rating": 1}).status_code == 200
        httpx.get(f"{server.url}/no/such/path")
        text = httpx.get(f"{server.url}/metrics").text
    lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    path = "/v1/images/generations"
    assert lines[f'diffusiongpt_requests_total{{method="POST",path="{path}",status="200"}}'] == "1.0"
    assert lines['diffusiongpt_requests_total{method="other",path="other",status="404"}'] == "1.0"
    assert lines['diffusiongpt_pictures_total{expert="tiny-generalist"}'] == "2.0"
    assert lines['diffusiongpt_phase_seconds_count{phase="draw"}'] == "1.0"
    assert lines['diffusiongpt_votes_total{outcome="rating"}'] == "1.0"
    assert lines['diffusiongpt_queue{state="waiting"}'] == "0.0"
    assert float(lines['diffusiongpt_cache_bytes{tier="host"}']) > 0


def test_metrics_are_there_without_usable_votes(tmp_path: Path) -> None:
    """A vote store whose address is mistyped fails routes, and hides nothing else from whoever watches."""
    settings = load_settings(home=tmp_path, votes="nonsense://user:secret@host/votes", stand_in=False)
    with DiffusionGPT("tiny", device="cpu", settings=settings) as studio, running(studio) as server:
        assert httpx.post(f"{server.url}/v1/route", json={"prompt": "a fox"}, timeout=60).status_code == 500
        answer = httpx.get(f"{server.url}/metrics")
    assert answer.status_code == 200
    assert "diffusiongpt_cache_bytes" in answer.text
    assert "secret" not in answer.text


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_request_leaves_one_line(tiny_studio: DiffusionGPT, caplog: pytest.LogCaptureFixture, form: str) -> None:
    """With what it was, how it ended and what it took; no prompt, no key, no address of a picture."""
    caplog.set_level(logging.INFO, logger="diffusiongpt.server")
    with running(tiny_studio, log=form, api_keys="a-secret-key") as server:
        headers = {"authorization": "Bearer a-secret-key"}
        body = {"prompt": "a very private thing", "response_format": "url"}
        url = f"{server.url}/v1/images/generations?prompt=private"
        picture = httpx.post(url, json=body, headers=headers, timeout=60).json()["data"][0]["url"]
        httpx.get(picture)
        wait_until(lambda: len([one for one in caplog.records if one.name == "diffusiongpt.server"]) == 2)
    lines = [one.getMessage() for one in caplog.records if one.name == "diffusiongpt.server"]
    assert not any(word in line for line in lines for word in ("private", "a-secret-key", Path(picture).stem))
    if form == "json":
        facts = json.loads(lines[0])
        assert (facts["path"], facts["status"], facts["expert"]) == ("/v1/images/generations", 200, "tiny-generalist")
    else:
        assert "path=/v1/images/generations status=200" in lines[0]


@contextmanager
def process_of(folder: Path, *more: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """`diffusiongpt serve` as a process of its own, and its address."""
    command = [sys.executable, "-m", "diffusiongpt", "serve", "--zoo", "tiny", "--port", "0", "--device", "cpu", *more]
    log = folder / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(command, stderr=file, env={**os.environ, "DIFFUSIONGPT_HOME": str(folder)})
    try:
        wait_until(lambda: "http://" in log.read_text(), 120)
        yield process, re.findall(r"http://[\w.:]+", log.read_text())[0]
    finally:
        process.kill()
        process.wait()


def test_a_stopped_server_finishes_what_it_draws(tmp_path: Path) -> None:
    """What draws is answered, what waits is refused, nothing new is taken, and the process itself ends, well."""
    body = {**SLOW, "num_inference_steps": 150}
    with process_of(tmp_path) as (process, url), ThreadPoolExecutor(2) as pool:
        first = pool.submit(httpx.post, f"{url}/v1/images/generations", json=body, timeout=120)
        wait_until(lambda: httpx.get(f"{url}/v1/queue", timeout=60).json()["drawing"] == 1)
        second = pool.submit(httpx.post, f"{url}/v1/images/generations", json=body, timeout=120)
        wait_until(lambda: httpx.get(f"{url}/v1/queue", timeout=60).json()["waiting"] == 1)
        process.send_signal(signal.SIGTERM)
        assert second.result().status_code == 503
        assert first.result().status_code == 200
        assert process.wait(60) == 0


def test_a_key_that_can_be_guessed_is_warned_of(tmp_path: Path) -> None:
    """It works, as whoever serves wants it to, and the log has the warning without the key."""
    with process_of(tmp_path, "--api-key", "quartz") as (_, url):
        assert httpx.get(f"{url}/v1/models", headers={"authorization": "Bearer quartz"}, timeout=60).status_code == 200
        assert httpx.get(f"{url}/v1/models", timeout=60).status_code == 401
    log = (tmp_path / "log").read_text()
    assert "less than 8 characters: it can be guessed" in log
    assert "quartz" not in log


@pytest.mark.parametrize("arguments", [["--host", "0.0.0.0"], ["--no-auth", "--api-key", "k"], ["--port", "70000"]])  # noqa: S104
def test_a_careless_address_is_refused(tmp_path: Path, arguments: list[str]) -> None:
    """An address that others can reach needs a key or a word; the exit code is that of wrong use."""
    done = subprocess.run(
        [sys.executable, "-m", "diffusiongpt", "serve", "--zoo", "tiny", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "DIFFUSIONGPT_HOME": str(tmp_path)},
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error:")


def test_settings_guard_an_address_in_python_too(tiny_studio: DiffusionGPT) -> None:
    """An app cannot be made with settings that the command line refuses; with a key, or a word, it can."""
    from diffusiongpt.apps.server import load_server_settings

    with pytest.raises(SettingsError, match="others can reach"):
        load_server_settings(host="0.0.0.0")  # noqa: S104
    for settings in ({"api_keys": "k"}, {"no_auth": True}):
        create_app(tiny_studio, ServerSettings(host="0.0.0.0", **settings))  # noqa: S104
