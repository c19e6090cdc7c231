"""Prometheus metrics of the operator."""

import os
from importlib.metadata import PackageNotFoundError, version

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest

# A second series per counter that says when it began: twice the data for a number nobody asks for.
disable_created_metrics()  # type: ignore[no-untyped-call]
REGISTRY = CollectorRegistry()

_FAST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

BUILD = Gauge("crossfold_build_info", "Always 1; the version is the label.", ["version"], registry=REGISTRY)
LEADER = Gauge("crossfold_leader", "1 while this operator works, 0 while it stands by.", registry=REGISTRY)

QUEUE_DEPTH = Gauge("crossfold_queue_depth", "Keys that wait for a worker.", registry=REGISTRY)
QUEUE_WAIT = Histogram(
    "crossfold_queue_wait_seconds",
    "From a change to the start of its reconcile.",
    registry=REGISTRY,
    buckets=_FAST,
)
RECONCILE_SECONDS = Histogram(
    "crossfold_reconcile_seconds", "Duration of a reconcile.", ["kind"], registry=REGISTRY, buckets=_FAST
)
RECONCILE_ERRORS = Counter(
    "crossfold_reconcile_errors", "Reconciles that failed and are tried again.", ["kind", "error"], registry=REGISTRY
)

API_REQUESTS = Counter(
    "crossfold_api_requests", "Requests to the API server; code none: no answer.", ["verb", "code"], registry=REGISTRY
)
API_SECONDS = Histogram(
    "crossfold_api_request_seconds", "Duration of a request.", ["verb"], registry=REGISTRY, buckets=_FAST
)
API_WAIT = Histogram(
    "crossfold_api_wait_seconds",
    "What a request waited for the client-side rate limit.",
    registry=REGISTRY,
    buckets=_FAST,
)
WATCH_RESTARTS = Counter(
    "crossfold_watch_restarts", "Watches that ended, by why.", ["kind", "reason"], registry=REGISTRY
)
PROGRESS_REPORTS = Counter(
    "crossfold_progress_reports", "Reports of running trainers, by what became of them.", ["outcome"], registry=REGISTRY
)
LOOP_SILENCE = Gauge(
    "crossfold_loop_silent_seconds",
    "How long the event loop that works has not turned: over a second, something keeps everything else waiting.",
    registry=REGISTRY,
)
SEARCH_SECONDS = Histogram(
    "crossfold_search_seconds",
    "From a question to a sampler that a worker took up to its answer.",
    ["algorithm"],
    registry=REGISTRY,
    buckets=_FAST,
)
SEARCH_FAILURES = Counter(
    "crossfold_search_failures", "Questions to samplers without an answer.", ["reason"], registry=REGISTRY
)
SEARCH_WORKERS_STARTED = Counter(
    "crossfold_search_workers_started", "Processes for samplers that were started.", registry=REGISTRY
)
OBJECTS = Gauge("crossfold_objects", "Objects in the cache.", ["kind"], registry=REGISTRY)


def exposition() -> bytes:
    """All metrics in Prometheus' text format."""
    return generate_latest(REGISTRY)


def version_of_this() -> str:
    """Version of the operator: the chart's word, else the installed distribution's."""
    try:
        return os.environ.get("CROSSFOLD_VERSION") or version("crossfold")
    except PackageNotFoundError:
        return "unknown"
