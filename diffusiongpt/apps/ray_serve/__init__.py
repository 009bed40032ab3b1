"""A fleet on Ray Serve: the same server in front, and replicas that draw, each with a cache of its own.

    serve run diffusiongpt.apps.ray_serve:fleet replicas=3 zoo=tiny

Requests go to where their expert is, or will be first; which that is, `diffusiongpt.fleet` decides.
"""

from diffusiongpt.apps.ray_serve.deploy import fleet, serve_fleet
from diffusiongpt.apps.ray_serve.options import FleetOptions
from diffusiongpt.apps.ray_serve.remote import RemoteExecutor

__all__ = ["FleetOptions", "RemoteExecutor", "fleet", "serve_fleet"]
