"""Whether the server is alive, whether it can take a request, and what it has counted."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from diffusiongpt.apps.server.service import Service, client_or_none, service_of
from diffusiongpt.errors import VoteError
from diffusiongpt.version import VERSION

router = APIRouter(tags=["health"])


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """Answer as long as the process is alive."""
    return {"status": "ok"}


@router.get("/readyz")
def readyz(request: Request, service: Annotated[Service, Depends(service_of)]) -> Response:
    """Whether it takes requests; for those who have a key also what is loaded and on disk."""
    draining = service.jobs.draining
    state: dict[str, Any] = {"status": "stopping" if draining else "ready"}
    if client_or_none(request) is not None:
        residents = service.studio.cache.explain().residents
        loaded = [
            {
                "what": one.what,
                "tier": one.tier,
                "bytes": one.nbytes,
                "experts": list(one.experts),
                "in_use": one.leases,
            }
            for one in residents
            if one.tier != "disk"
        ]
        state |= {
            "version": VERSION,
            "device": service.studio.device,
            "experts": len(service.studio.zoo),
            "at_hand": list(service.studio.at_hand()),
            "loaded": loaded,
            "votes_queued": _votes_queued(service),
        }
    return JSONResponse(state, 503 if draining else 200)


def _votes_queued(service: Service) -> int | None:
    """Votes that wait for their database; `None` where they are in a file, or the queue cannot be read."""
    try:
        queue = service.studio.preferences.store.queue()
    except VoteError:
        return None
    return queue.waiting if queue is not None else None


@router.get("/metrics", response_class=Response)
def metrics(service: Annotated[Service, Depends(service_of)]) -> Response:
    """Requests, seconds by phase, pictures, fallbacks, votes and those that wait, queue and cache, for Prometheus."""
    return Response(service.metrics.as_text(), media_type=CONTENT_TYPE_LATEST)
