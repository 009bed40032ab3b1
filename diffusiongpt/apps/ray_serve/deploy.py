"""The application that Ray Serve runs: the server in front, and the replicas that draw."""

from __future__ import annotations

import logging
import os
import signal
from threading import Event
from typing import TYPE_CHECKING, Any

import ray
from pydantic import ValidationError
from ray import serve
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy, HTTPOptions, RequestRouterConfig

from diffusiongpt.apps.ray_serve.drawer import WAITING, Drawer
from diffusiongpt.apps.ray_serve.options import FleetOptions
from diffusiongpt.apps.ray_serve.remote import RemoteExecutor
from diffusiongpt.apps.ray_serve.routing import ByModel
from diffusiongpt.apps.ray_serve.scaling import ByQueueSeconds
from diffusiongpt.apps.server import create_app, load_server_settings
from diffusiongpt.errors import SettingsError
from diffusiongpt.settings import Memory, load_settings
from diffusiongpt.studio import DiffusionGPT
from diffusiongpt.zoo import Zoo

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastapi import FastAPI
    from ray.serve import Application
    from ray.serve.handle import DeploymentHandle

    from diffusiongpt.apps.ray_serve.options import ReplicaOptions
    from diffusiongpt.apps.server import ServerSettings
    from diffusiongpt.zoo import Expert

NAME = "diffusiongpt"

FRONT = "Front"

KILLS_WHAT_HANGS = "RAY_SERVE_FORCE_STOP_UNHEALTHY_REPLICAS"
"""Ray Serve's variable, read where its controller starts. Without it a replica that hangs has `FINISH_S` to finish what
it never will, and whoever waits for that is not sent elsewhere."""

FINISH_S = 600.0
"""Seconds that a replica which is stopped has to finish what it draws, as in a rolling update. As long as a request may
take by default."""

MORE_S = 10.0
"""Seconds of too long waits after which there are more replicas. A stated belief."""

LOOK_BACK_S = 20.0
"""Seconds over which waits are averaged. They come every ten seconds."""

REPORT_S = 1.0
"""Seconds between two reports of a replica. `benchmarks/fleet.py` simulates the same."""


def fleet(arguments: dict[str, Any] | None = None, **more: Any) -> Application:
    """Build the application, for `serve run`, `serve deploy` and KubeRay.

    How it is served is read from the environment of its processes (`DIFFUSIONGPT_SERVE_...`). The zoo is read here,
    once, so that all processes have the same one, also those that start later.

    Args:
        arguments: Those of `FleetOptions`, as Ray Serve reads them from its command line or configuration file.
        more: The same, as keyword arguments.

    Raises:
        SettingsError: If an argument is unknown or out of range.
        ZooError: If the zoo cannot be used.
    """
    return _application(_options({**(arguments or {}), **more}), None)


def serve_fleet(settings: ServerSettings, *, zoo: str = "", replicas: int | None = None) -> None:
    """Start a fleet on this machine, or join the Ray that runs there, until SIGINT or SIGTERM ends it.

    Args:
        settings: How it is served.
        zoo: Layers of the zoo, separated by commas; empty for those of the settings.
        replicas: Replicas that draw; one for each GPU if absent, and two where there is none.
    """
    os.environ.setdefault(KILLS_WHAT_HANGS, "1")
    ray.init(ignore_reinit_error=True, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    there: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    gpus = there.get("GPU", 0.0)
    number = replicas or round(gpus) or 2
    each = {"gpus": min(1.0, gpus / number)} if gpus else {"cpus": max(0.1, (there["CPU"] - 1) / number)}
    options = _options({"zoo": zoo, "replicas": number, **each})
    asked_to_end = Event()
    for one in (signal.SIGINT, signal.SIGTERM):
        signal.signal(one, lambda *_: asked_to_end.set())
    try:
        serve.start(http_options=HTTPOptions(host=settings.host, port=settings.port))
        serve.run(_application(options, settings), name=NAME, route_prefix="/")
        asked_to_end.wait()
    finally:
        serve.shutdown()  # type: ignore[no-untyped-call]
        ray.shutdown()


def _application(options: FleetOptions, settings: ServerSettings | None) -> Application:
    zoo = Zoo.load(*(options.layers or load_settings().zoo_layers))
    finish_s = settings.shutdown_s if settings else FINISH_S
    draws = {kind: _drawers(kind, of_kind, options, zoo, finish_s) for kind, of_kind in options.drawing.items()}
    front = serve.deployment(
        name=FRONT,
        num_replicas=options.fronts,
        max_ongoing_requests=1000,
        ray_actor_options={"num_cpus": 0.5, **_resources(options.front_resources)},
        graceful_shutdown_timeout_s=finish_s,
    )(_Front)
    application: Application = front.bind(options, draws, zoo, settings)
    return application


def _drawers(kind: str, of_kind: ReplicaOptions, options: FleetOptions, zoo: Zoo, finish_s: float) -> Application:
    """The deployment of one kind of replicas."""
    routing = {
        "request_router_class": ByModel,
        "request_router_kwargs": {"kind": kind},
        "request_routing_stats_period_s": REPORT_S,
    }
    actor = {"num_cpus": of_kind.cpus, "num_gpus": of_kind.gpus, **_resources(of_kind.resources)}
    application: Application = serve.deployment(
        name=f"Drawer-{kind}" if kind else "Drawer",
        max_ongoing_requests=WAITING,
        ray_actor_options=actor,
        user_config={"front": FRONT, "kind": kind},
        health_check_period_s=5,
        health_check_timeout_s=30,
        graceful_shutdown_timeout_s=finish_s,
        request_router_config=RequestRouterConfig.model_validate(routing),
        **_size(of_kind, options),
    )(Drawer).bind(zoo, options.hang_s)
    return application


@serve.ingress()
class _Front:
    """The server of a single machine, whose studio makes routes here and has them drawn by the replicas."""

    def __init__(
        self,
        options: FleetOptions,
        draws: Mapping[str, DeploymentHandle[Any]],
        zoo: Zoo,
        settings: ServerSettings | None = None,
    ) -> None:
        self._options = options
        self._zoo = zoo
        self._settings = settings
        memory = {kind: Memory.parse(one.memory) if one.memory else None for kind, one in options.drawing.items()}
        self._executor = RemoteExecutor(draws, memory if options.kinds else None)

    def __serve_build_asgi_app__(self) -> FastAPI:  # Ray Serve's own name
        """The app, built in the process that serves it."""
        memory = {"memory": self._options.memory} if self._options.memory else {}
        settings = load_settings(stand_in=False, **memory)
        studio = DiffusionGPT(self._zoo, settings=settings, executor=self._executor)
        return create_app(studio, self._settings or load_server_settings())

    def to_warm(self, kind: str) -> list[Expert]:
        """Experts that a new replica of a kind should bring before it takes requests, the most wanted first."""
        return [self._zoo[one] for one in self._executor.to_warm(kind) if one in self._zoo]


def _resources(those: Mapping[str, float]) -> dict[str, Any]:
    """Ray's own argument, which must not be empty."""
    return {"resources": dict(those)} if those else {}


def _size(of_kind: ReplicaOptions, options: FleetOptions) -> dict[str, Any]:
    """A fixed number of replicas, or as many as what is asked for takes."""
    if not of_kind.most:
        return {"num_replicas": of_kind.replicas}
    scaling = AutoscalingConfig(
        min_replicas=of_kind.least,
        max_replicas=of_kind.most,
        upscale_delay_s=MORE_S,
        downscale_delay_s=options.idle_s,
        look_back_period_s=LOOK_BACK_S,
        policy=AutoscalingPolicy.model_validate(
            {"policy_function": ByQueueSeconds, "policy_kwargs": {"wait_s": options.wait_s}}
        ),
    )
    return {"autoscaling_config": scaling}


def _options(arguments: dict[str, Any]) -> FleetOptions:
    try:
        return FleetOptions.model_validate(arguments)
    except ValidationError as error:
        first = error.errors()[0]
        raise SettingsError(
            f"a fleet cannot have {'.'.join(map(str, first['loc']))}: {first['msg']}",
            hint=f"Its arguments are {', '.join(FleetOptions.model_fields)}.",
        ) from error
