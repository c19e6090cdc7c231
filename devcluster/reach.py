"""The proof that the cluster works: a pod that reaches the API server by name, and both S3 servers."""

import time
from collections.abc import Iterable
from typing import Any

from devcluster.api import Api, ApiError
from devcluster.console import DevclusterError
from devcluster.runtime import PAUSE_IMAGE

NAMESPACE = "kube-system"
NAME = "devcluster-reach"
_PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
_DEADLINE_S = 120.0


def check(api: Api, s3_endpoints: Iterable[str]) -> None:
    """Runs the pod to its end.

    Raises:
        DevclusterError: It did not reach everything.
    """
    _delete(api)
    deadline = time.monotonic() + _DEADLINE_S
    _create(api, pod(s3_endpoints), deadline)
    phase = "Pending"
    while phase not in ("Succeeded", "Failed"):
        if time.monotonic() > deadline:
            look = f"kubectl -n {NAMESPACE} describe pod {NAME}"
            raise DevclusterError(f"the pod {NAME} is still {phase} after {_DEADLINE_S:.0f} s: {look}")
        time.sleep(0.2)
        phase = api.json("GET", f"{_PODS}/{NAME}")["status"]["phase"]
    if phase == "Failed":
        raise DevclusterError("a pod does not reach what it should:\n" + api.text("GET", f"{_PODS}/{NAME}/log"))
    _delete(api)


def _create(api: Api, manifest: dict[str, Any], deadline: float) -> None:
    while True:
        try:
            api.json("POST", _PODS, manifest)
        except ApiError as error:
            # 403: the namespace's service account is not there yet. 409: the former pod is still going.
            if error.status not in (403, 404, 409) or time.monotonic() > deadline:
                raise DevclusterError(f"cannot create the pod {NAME}: {error}") from error
            time.sleep(0.2)
        else:
            return


def _delete(api: Api) -> None:
    try:
        api.json("DELETE", f"{_PODS}/{NAME}?gracePeriodSeconds=0")
    except ApiError as error:
        if error.status != 404:
            raise


def pod(s3_endpoints: Iterable[str]) -> dict[str, Any]:
    """The pod: it succeeds once the API server, by name, and each of the URLs have answered."""
    container = {
        "name": "reach",
        "image": PAUSE_IMAGE,
        "imagePullPolicy": "Never",
        "command": ["/reach", "https://kubernetes.default/version", *s3_endpoints],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": NAME},
        "spec": {"restartPolicy": "Never", "containers": [container]},
    }
