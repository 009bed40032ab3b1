"""The application that Ray Serve runs: the server in front, and the replicas that draw."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import ray
from pydantic import ValidationError
from ray import serve
from ray.serve.config import AutoscalingConfig, HTTPOptions, RequestRouterConfig

from diffusiongpt.apps.ray_serve.drawer import WAITING, Drawer
from diffusiongpt.apps.ray_serve.options import FleetOptions
from diffusiongpt.apps.ray_serve.remote import RemoteExecutor
from diffusiongpt.apps.ray_serve.routing import ByModel
from diffusiongpt.apps.server import create_app, load_server_settings
from diffusiongpt.errors import SettingsError
from diffusiongpt.settings import load_settings
from diffusiongpt.studio import DiffusionGPT

if TYPE_CHECKING:
    from fastapi import FastAPI
    from ray.serve import Application
    from ray.serve.handle import DeploymentHandle

    from diffusiongpt.apps.server import ServerSettings

NAME = "diffusiongpt"

REPORT_S = 1.0
"""Seconds between two reports of a replica. `benchmarks/fleet.py` simulates the same."""


def fleet(arguments: dict[str, Any] | None = None, **more: Any) -> Application:
    """Build the application, for `serve run`, `serve deploy` and KubeRay.

    How it is served is read from the environment of its processes (`DIFFUSIONGPT_SERVE_...`).

    Args:
        arguments: Those of `FleetOptions`, as Ray Serve reads them from its command line or configuration file.
        more: The same, as keyword arguments.

    Raises:
        SettingsError: If an argument is unknown or out of range.
    """
    return _application(_options({**(arguments or {}), **more}), None)


def serve_fleet(settings: ServerSettings, *, zoo: str = "", replicas: int | None = None) -> None:
    """Start a fleet on this machine, or join the Ray that runs there, until the process is asked to end.

    Args:
        settings: How it is served.
        zoo: Layers of the zoo, separated by commas; empty for those of the settings.
        replicas: Replicas that draw; one for each GPU if absent, and two where there is none.
    """
    ray.init(ignore_reinit_error=True, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    there: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    gpus = there.get("GPU", 0.0)
    number = replicas or round(gpus) or 2
    each = {"gpus": min(1.0, gpus / number)} if gpus else {"cpus": max(0.1, (there["CPU"] - 1) / number)}
    options = _options({"zoo": zoo, "replicas": number, **each})
    serve.start(http_options=HTTPOptions(host=settings.host, port=settings.port))
    serve.run(_application(options, settings), name=NAME, route_prefix="/", blocking=True)


def _application(options: FleetOptions, settings: ServerSettings | None) -> Application:
    routing = {"request_router_class": ByModel, "request_routing_stats_period_s": REPORT_S}
    draws = serve.deployment(
        name="Drawer",
        max_ongoing_requests=WAITING,
        ray_actor_options={"num_cpus": options.cpus, "num_gpus": options.gpus},
        health_check_period_s=5,
        health_check_timeout_s=30,
        graceful_shutdown_timeout_s=120,
        request_router_config=RequestRouterConfig.model_validate(routing),
        **_size(options),
    )(Drawer)
    front = serve.deployment(
        name="Front",
        num_replicas=options.fronts,
        max_ongoing_requests=1000,
        ray_actor_options={"num_cpus": 0.5},
    )(_Front)
    application: Application = front.bind(options, draws.bind(options.layers, options.hang_s), settings)
    return application


@serve.ingress()
class _Front:
    """The server of a single machine, whose studio makes routes here and has them drawn by the replicas."""

    def __init__(
        self, options: FleetOptions, draws: DeploymentHandle[Any], settings: ServerSettings | None = None
    ) -> None:
        self._options = options
        self._draws = draws
        self._settings = settings

    def __serve_build_asgi_app__(self) -> FastAPI:  # Ray Serve's own name
        """The app, built in the process that serves it."""
        memory = {"memory": self._options.memory} if self._options.memory else {}
        settings = load_settings(stand_in=False, **memory)
        studio = DiffusionGPT(self._options.layers or None, settings=settings, executor=RemoteExecutor(self._draws))
        return create_app(studio, self._settings or load_server_settings())


def _size(options: FleetOptions) -> dict[str, Any]:
    """A fixed number of replicas, or as many as what is asked for takes."""
    if not options.most:
        return {"num_replicas": options.replicas}
    scaling = AutoscalingConfig(
        min_replicas=options.least, max_replicas=options.most, target_ongoing_requests=2, downscale_delay_s=300
    )
    return {"num_replicas": "auto", "autoscaling_config": scaling}


def _options(arguments: dict[str, Any]) -> FleetOptions:
    try:
        return FleetOptions.model_validate(arguments)
    except ValidationError as error:
        first = error.errors()[0]
        raise SettingsError(
            f"a fleet cannot have {'.'.join(map(str, first['loc']))}: {first['msg']}",
            hint=f"Its arguments are {', '.join(FleetOptions.model_fields)}.",
        ) from error
