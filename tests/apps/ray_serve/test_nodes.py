"""A fleet over several nodes of a real Ray: one is lost with its replicas and their caches, or the head is."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fixtures_cluster import running_cluster, store_of_head
from fixtures_fleet import ON_RAY, pixels, processes, wait_until

pytestmark = [*ON_RAY, pytest.mark.long, pytest.mark.timeout(900)]


def test_what_a_lost_node_had_is_drawn_by_the_others_once(tmp_path: Path) -> None:
    """With the same pixels; what it had loaded counts as gone, and a node that comes in its place takes work."""
    short: dict[str, Any] = {"expert": "tiny-oil"}
    long = {**short, "num_inference_steps": 300}
    with running_cluster(tmp_path, fronts=1) as fleet:
        nodes = [fleet.add_node(num_cpus=1, resources={"draws": 2}) for _ in range(2)]
        fleet.deploy(replicas=4, cpus=0.1, resources={"draws": 1}, front_resources={"fronts": 1})
        wanted = pixels(fleet.drawn(**long))
        fleet.wait_until_known()
        (holder,) = [one["pid"] for one in fleet.replicas() if "tiny-oil" in one["loaded"]]
        (node,) = [one for one in nodes if holder in _drawing(one)]
        lost, before = _drawing(node), _ended(fleet)
        assert len(lost) == 2
        with ThreadPoolExecutor(3) as threads:
            answers = [threads.submit(fleet.drawn, **long) for _ in range(3)]
            wait_until(lambda: sum(state["requests"] for state in fleet.states().values()) == 3)
            had = {state["pid"]: state["requests"] for state in fleet.states().values()}
            assert had[holder]
            assert not any(answer.done() for answer in answers)
            fleet.lose(node)
            got = [answer.result() for answer in answers]
        assert {pixels(one) for one in got} == {wanted}
        fleet.wait_until_known()
        after = _ended(fleet)
        assert not lost & after.keys()
        assert sum(after.values()) - sum(before[pid] for pid in after) == 3
        there = [one for one in fleet.replicas() if "tiny-oil" in one["loaded"]]
        assert there
        assert not lost & {one["pid"] for one in there}

        again = fleet.add_node(num_cpus=1, resources={"draws": 2})
        wait_until(lambda: len(_drawing(again)) == 2)
        fleet.wait_until_shown()
        with ThreadPoolExecutor(8) as threads:
            while not all(_ended(fleet)[pid] for pid in _drawing(again)):
                list(threads.map(lambda _: fleet.drawn(**short), range(8)))
            assert pixels(fleet.drawn(**long)) == wanted


def _drawing(node: Any) -> set[int]:
    return {one.pid for one in node.processes("Drawer")}


def _ended(fleet: Any) -> dict[int, int]:
    return {state["pid"]: sum(state["ended"].values()) for state in fleet.states().values()}


@pytest.mark.parametrize("store", ["redis", "rocksdb"])
def test_pictures_are_drawn_while_the_head_is_gone(tmp_path: Path, store: str) -> None:
    """By the replicas that were there, which a head with the same store finds again; then it starts others too."""
    with store_of_head(store, tmp_path) as environment, running_cluster(tmp_path, **environment) as fleet:
        node = fleet.add_node(num_cpus=2, resources={"draws": 2, "fronts": 1})
        fleet.deploy(replicas=2, cpus=0.1, resources={"draws": 1}, front_resources={"fronts": 1})
        wanted = pixels(fleet.drawn())
        drawing = set(processes())
        answers: list[dict[str, Any]] = []
        going = True

        def ask(client: httpx2.Client) -> None:
            while going:
                answers.append(fleet.drawn(client))

        def wait_for_some() -> None:
            enough = len(answers) + 12  # of three clients: most of these were asked for after this
            wait_until(lambda: len(answers) >= enough or any(one.done() for one in asking))

        with ExitStack() as stack:
            clients = [stack.enter_context(closing(fleet.client_at(node))) for _ in range(3)]
            threads = stack.enter_context(ThreadPoolExecutor(3))
            asking = [threads.submit(ask, client) for client in clients]
            try:
                wait_for_some()
                fleet.lose_head()
                assert not processes("ServeController")
                wait_for_some()
                fleet.start_head()
                wait_until(lambda: processes("ServeController"))
                wait_for_some()
                assert set(processes()) == drawing
                os.kill(min(drawing), signal.SIGKILL)
                wait_until(lambda: len(set(processes()) - {min(drawing)}) == 2)
                wait_for_some()
            finally:
                going = False
            for one in asking:
                one.result()
        fleet.wait_until_shown()
        assert {pixels(one) for one in answers} == {wanted}
        ballots = [one["data"][0]["diffusiongpt"]["ballot"] for one in answers]
        assert len(set(ballots)) == len(ballots)
