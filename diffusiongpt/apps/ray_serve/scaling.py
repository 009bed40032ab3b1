"""How many replicas Ray Serve keeps: by the seconds that a request would wait."""

from __future__ import annotations

from statistics import fmean
from typing import TYPE_CHECKING, Any

from diffusiongpt.fleet import replicas_for

if TYPE_CHECKING:
    from ray.serve.config import AutoscalingContext


class ByQueueSeconds:
    """Ray Serve's policy: as many replicas as keep the expected wait of a new request within a time.

    The replicas report their work (`Drawer.record_autoscaling_stats`). Bounds and delays are Ray Serve's own, and so is
    the first replica after all have stopped.

    Args:
        wait_s: The time.
    """

    def __init__(self, wait_s: float) -> None:
        self._wait_s = wait_s

    def __call__(self, context: AutoscalingContext) -> tuple[float, dict[str, Any]]:
        """Replicas that there should be now."""
        metrics = context.aggregated_metrics or {}
        queues = [*metrics.get("queue_s", {}).values()]
        each = [seconds for seconds in metrics.get("draw_s", {}).values() if seconds]
        # what no replica has taken is known by its number alone
        number = context.total_queued_requests or 0.0
        waiting = number * (fmean(each) if each else 0.0)
        wanted = replicas_for(queues, waiting, self._wait_s)
        # one that takes longer to start than idle ones stay has not reported yet, and must not be stopped for that
        return float(max(wanted, 1 if number else 0)), {}
