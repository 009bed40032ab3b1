"""A fleet whose head ended, with all that ran there."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest
from fixtures_fleet import ON_RAY, pixels, processes, running_ray

pytestmark = [*ON_RAY, pytest.mark.long, pytest.mark.timeout(900)]


def test_a_fleet_that_starts_again_knows_its_votes(tmp_path: Path) -> None:
    """Also after its head was killed: the ranking and the pictures are those of before."""

    def ran(*, vote: bool) -> tuple[str, bytes]:
        with running_ray(tmp_path) as fleet:
            fleet.deploy(replicas=1)
            answer = fleet.drawn(expert="tiny-oil")
            if vote:
                ballot = answer["data"][0]["diffusiongpt"]["ballot"]
                body: dict[str, Any] = {"ballot": ballot, "rating": 5}
                assert httpx2.post(f"{fleet.address}/v1/votes", json=body, timeout=60).status_code == 200
            version = httpx2.get(f"{fleet.address}/v1/ranking", timeout=60).json()["ranking_version"]
            if vote:
                # what the head started does not always end with it
                started.extend(psutil.Process().children(recursive=True))
                for one in (*processes("ServeController"), *processes("gcs_server")):
                    os.kill(one, signal.SIGKILL)
            return version, pixels(answer)

    started: list[psutil.Process] = []
    try:
        before = ran(vote=True)
        assert before[0] != "r0"
        assert ran(vote=False) == before
    finally:
        for one in started:
            with suppress(psutil.NoSuchProcess):
                one.kill()
