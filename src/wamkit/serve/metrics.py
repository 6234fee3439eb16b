"""What a server does, as Prometheus reads it: the page /metrics."""

from __future__ import annotations

from functools import partial

import torch
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from wamkit.serve.refusals import Reason
from wamkit.serve.watch import Timing, Watch

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 30.0)
SCORES = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0, 50.0, 100.0)
SIZES = (1, 2, 4, 8, 16, 32, 64)


class Metrics(Watch):
    """A Watch that counts. Every name begins with "wamkit_"; the process's own memory and time are there too."""

    def __init__(self) -> None:
        self._registry = own = CollectorRegistry()
        ProcessCollector(registry=own)
        seconds = partial(Histogram, registry=own, buckets=SECONDS)
        self._connections = Gauge("wamkit_connections", "Open connections", registry=own)
        self._waiting = Gauge("wamkit_waiting_queries", "Queries that wait for the policy", registry=own)
        self._requests = seconds(
            "wamkit_request_seconds", "From a message until its answer was sent", ["dialect"]
        )
        self._refused = Counter(
            "wamkit_refused", "Messages that were not answered", ["dialect", "reason"], registry=own
        )
        self._queued = seconds("wamkit_queue_seconds", "From a query until the policy was called", ["policy"])
        self._parts = seconds(
            "wamkit_stage_seconds", "Calls of the policy (stage call), and their parts", ["policy", "stage"]
        )
        self._batch = Histogram(
            "wamkit_batch_observations",
            "Observations that one call answered",
            ["policy"],
            registry=own,
            buckets=SIZES,
        )
        self._outside = Counter(
            "wamkit_proprio_outside",
            "Observations whose proprio is far from all that the policy was trained on",
            ["policy", "robot"],
            registry=own,
        )
        self._warnings = Histogram(
            "wamkit_warning_score",
            "How wrong the world model was about the present, 1 is as usual",
            ["policy"],
            registry=own,
            buckets=SCORES,
        )
        self._alarms = Counter(
            "wamkit_warning_alarms", "Queries whose warning score was too high", ["policy"], registry=own
        )
        self._exchanged = Counter(
            "wamkit_colours_exchanged",
            "Connections whose images look as if red and blue were exchanged",
            ["policy", "robot", "camera"],
            registry=own,
        )
        self._reloads = Counter(
            "wamkit_reloads", "Run directories that were loaded anew", ["policy", "done"], registry=own
        )
        if torch.cuda.is_available():
            memory = Gauge("wamkit_device_memory_bytes", "Memory of the GPU that tensors take", registry=own)
            memory.set_function(torch.cuda.memory_allocated)

    def page(self) -> tuple[str, str]:
        """Content type and text."""
        return CONTENT_TYPE_LATEST, generate_latest(self._registry).decode()

    def connected(self, change: int) -> None:
        self._connections.inc(change)

    def answered(self, dialect: str, seconds: float) -> None:
        self._requests.labels(dialect).observe(seconds)

    def refused(self, dialect: str, reason: Reason) -> None:
        self._refused.labels(dialect, reason).inc()

    def called(self, policy: str, timing: Timing, waiting: int) -> None:
        self._waiting.set(waiting)
        self._queued.labels(policy).observe(timing.queued)
        self._batch.labels(policy).observe(timing.batch)
        for part, seconds in {"call": timing.called, **timing.parts}.items():
            self._parts.labels(policy, part).observe(seconds)

    def outside(self, policy: str, robot: str) -> None:
        self._outside.labels(policy, robot).inc()

    def compared(self, policy: str, score: float, alarm: bool) -> None:
        self._warnings.labels(policy).observe(score)
        self._alarms.labels(policy).inc(alarm)

    def exchanged(self, policy: str, robot: str, view: str) -> None:
        self._exchanged.labels(policy, robot, view).inc()

    def reloaded(self, policy: str, done: bool) -> None:
        self._reloads.labels(policy, str(done).lower()).inc()
