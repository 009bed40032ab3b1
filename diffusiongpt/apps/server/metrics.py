"""What a server counts, in the form of Prometheus."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from diffusiongpt.errors import DiffusionGPTError
from diffusiongpt.safe_text import logger

if TYPE_CHECKING:
    from diffusiongpt.apps.server.jobs import Jobs
    from diffusiongpt.cache import CacheEvent
    from diffusiongpt.pictures import Generation
    from diffusiongpt.studio import DiffusionGPT

log = logger("diffusiongpt.server")

_SECONDS = (0.005, 0.02, 0.1, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600)


class Metrics:
    """The counters of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "diffusiongpt_requests", "Requests.", ("method", "path", "status"), registry=self.registry
        )
        self._seconds = Histogram(
            "diffusiongpt_request_seconds",
            "Seconds of requests.",
            ("path",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._phases = Histogram(
            "diffusiongpt_phase_seconds",
            "Seconds of a drawing by phase.",
            ("phase",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._pictures = Counter("diffusiongpt_pictures", "Pictures drawn.", ("expert",), registry=self.registry)
        self._fallbacks = Counter(
            "diffusiongpt_fallbacks",
            "Experts that should have drawn and could not.",
            ("expert",),
            registry=self.registry,
        )
        self._votes = Counter("diffusiongpt_votes", "Votes and ratings.", ("outcome",), registry=self.registry)
        self._events = Counter(
            "diffusiongpt_cache_events", "What the cache has done.", ("kind", "tier"), registry=self.registry
        )
        self._moved = Counter(
            "diffusiongpt_cache_moved_bytes",
            "Bytes that the cache has moved.",
            ("kind", "tier"),
            registry=self.registry,
        )

    def watch(self, studio: DiffusionGPT, jobs: Jobs) -> None:
        """Also count what the cache does, and show what it and the queue hold."""
        studio.cache.events.add(self._on_cache_event)
        self.registry.register(_State(studio, jobs))

    def request(self, method: str, path: str, status: int, seconds: float) -> None:
        """Count a request."""
        self._requests.labels(method, path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def drawn(self, generation: Generation) -> None:
        """Count a drawing."""
        for phase, seconds in generation.timings.items():
            self._phases.labels(phase).observe(seconds)
        self._pictures.labels(generation.drawn_by).inc(len(generation.images))
        for fallback in generation.fallbacks:
            self._fallbacks.labels(fallback.expert).inc()

    def voted(self, outcome: str) -> None:
        """Count a vote or a rating."""
        self._votes.labels(outcome).inc()

    def as_text(self) -> bytes:
        """All metrics, in Prometheus' text format."""
        return generate_latest(self.registry)

    def _on_cache_event(self, event: CacheEvent) -> None:
        self._events.labels(event.kind, event.tier).inc()
        self._moved.labels(event.kind, event.tier).inc(event.nbytes)


class _State(Collector):
    """What the cache and the queue hold at the moment of a reading."""

    def __init__(self, studio: DiffusionGPT, jobs: Jobs) -> None:
        self._studio = studio
        self._jobs = jobs

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        """The gauges, and what was counted elsewhere."""
        queue = GaugeMetricFamily("diffusiongpt_queue", "Drawings under way and waiting.", labels=("state",))
        states = [job.state for job in self._jobs.of()]
        for state in ("drawing", "waiting"):
            queue.add_metric((state,), states.count(state))
        yield queue
        held = GaugeMetricFamily("diffusiongpt_cache_bytes", "Bytes that the cache holds.", labels=("tier",))
        for ledger in self._studio.cache.explain().ledgers:
            held.add_metric((ledger.tier,), ledger.resident)
        yield held
        yield from self._queued_votes()

    def _queued_votes(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        """What waits for the database of the votes; nothing where they are in a file, or cannot be read."""
        store = self._studio.preferences.store
        try:
            store.prepare()  # a server that is only watched also sends what another process has left
            queue = store.queue()
        except DiffusionGPTError as error:
            log.warning("%s", error)
            return
        if queue is None:
            return
        yield GaugeMetricFamily(
            "diffusiongpt_votes_queued", "Votes on this machine that wait for their database.", queue.waiting
        )
        yield GaugeMetricFamily("diffusiongpt_votes_queued_bytes", "Bytes of those.", queue.nbytes)
        yield GaugeMetricFamily(
            "diffusiongpt_votes_refused", "Votes that have waited and that their database refused.", queue.refused
        )
        yield CounterMetricFamily(
            "diffusiongpt_votes_delivered", "Votes that have waited and that this process delivered.", queue.delivered
        )

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Nothing, so that registering does not read the disk."""
        return iter(())
