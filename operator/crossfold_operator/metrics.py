"""Prometheus metrics of the operator."""

from importlib.metadata import version

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

REGISTRY = CollectorRegistry()

_FAST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

BUILD = Gauge("crossfold_build_info", "Always 1; the version is the label.", ["version"], registry=REGISTRY)
BUILD.labels(version("crossfold")).set(1)
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
WATCH_RESTARTS = Counter(
    "crossfold_watch_restarts", "Watches that ended, by why.", ["kind", "reason"], registry=REGISTRY
)
OBJECTS = Gauge("crossfold_objects", "Objects in the cache.", ["kind"], registry=REGISTRY)


def exposition() -> bytes:
    """All metrics in Prometheus' text format."""
    return generate_latest(REGISTRY)
