"""Logs, metrics and stage timings."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

logger: structlog.stdlib.BoundLogger = structlog.get_logger("ragver")

_LATENCY_BUCKETS_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """Every metric ragver exports, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.commit_seconds = Histogram(
            "ragver_commit_stage_seconds",
            "Time of a commit by stage",
            ["stage"],
            buckets=_LATENCY_BUCKETS_S,
            registry=self.registry,
        )
        self.retrievals = Histogram(
            "ragver_retrieval_seconds",
            "Time of a retrieval by consistency level",
            ["level"],
            buckets=_LATENCY_BUCKETS_S,
            registry=self.registry,
        )
        self.dropped = Counter(
            "ragver_retrieval_dropped_total",
            "Index matches that the ledger did not confirm, by reason",
            ["reason"],
            registry=self.registry,
        )
        self.verdicts = Counter("ragver_verdicts_total", "Verdicts by decision", ["decision"], registry=self.registry)
        self.citations = Counter(
            "ragver_citations_total", "Checked citations by status", ["status"], registry=self.registry
        )
        self.answers = Counter(
            "ragver_answers_recorded_total",
            "Validations put on record, by verdict",
            ["decision"],
            registry=self.registry,
        )
        self.webhook_deliveries = Counter(
            "ragver_webhook_deliveries_total",
            "Attempts to deliver recalls, by what became of them",
            ["outcome"],
            registry=self.registry,
        )
        self.recalls_outstanding = Gauge(
            "ragver_recalls_outstanding",
            "Recalls that a webhook has still to be told, up to the size of a page",
            ["corpus", "webhook"],
            registry=self.registry,
        )
        self.lag_epochs = Gauge(
            "ragver_index_lag_epochs", "Epochs between head and applied epoch", ["corpus"], registry=self.registry
        )
        self.collected = Counter(
            "ragver_gc_chunks_total",
            "Dead chunks whose points, texts and vectors were removed",
            ["corpus"],
            registry=self.registry,
        )
        self.collection_time = Gauge(
            "ragver_gc_last_success_timestamp_seconds",
            "When a collection last came to its end",
            ["corpus"],
            registry=self.registry,
        )
        self.erasures_pending = Gauge(
            "ragver_erasures_pending", "Erasures that wait for a store", registry=self.registry
        )
        self.erasures_undone = Counter(
            "ragver_erasures_undone_total", "Complete erasures of which something came back", registry=self.registry
        )
        self.drift = Gauge(
            "ragver_drift",
            "Differences between ledger and index that the last complete reconciliation has left, by kind",
            ["corpus", "kind"],
            registry=self.registry,
        )
        self.reconciled_time = Gauge(
            "ragver_reconciliation_last_success_timestamp_seconds",
            "When the last complete reconciliation began",
            ["corpus"],
            registry=self.registry,
        )
        self.indexed = Counter(
            "ragver_indexed_changes_total", "Chunk changes applied to the index", registry=self.registry
        )


@dataclass(slots=True)
class Stages:
    """How long the stages of one piece of work took, in seconds."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time of the block to a stage."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started

    def server_timing(self) -> str:
        """As a Server-Timing header (W3C), in milliseconds."""
        return ", ".join(f"{name};dur={seconds * 1000:.3f}" for name, seconds in self.seconds.items())
