"""What a person with a cluster does next: install the chart, and give a namespace its way to the S3 servers."""

import json
from typing import Any

from devcluster import images, s3
from devcluster.console import step
from devcluster.paths import REPOSITORY, State
from devcluster.shell import run

RELEASE = "crossfold"
NAMESPACE = "crossfold-system"
_PORT = 9000


def install(state: State, *settings: str) -> None:
    """Installs the chart with the images that were built, or upgrades it; waits until the operator is ready.

    Args:
        state: The cluster's.
        settings: Further values of the chart, such as `watchNamespace=team-a`.
    """
    built = images.images(state)
    operator = built["operator"]
    repository = operator["image"].rpartition(":")[0]
    values = {
        "image.repository": repository,
        # By digest or by tag: whichever follows the name.
        "image.tag": operator["reference"].removeprefix(repository)[1:],
        "trainerImage": built["trainer"]["reference"],
    }
    pairs = [*(f"{name}={value}" for name, value in values.items()), *settings]
    with step("install the chart"):
        command = [
            str(state.bin / "helm"),
            *("upgrade", "--install", RELEASE, str(REPOSITORY / "charts/crossfold")),
            *("--namespace", NAMESPACE, "--create-namespace", "--kubeconfig", str(state.kubeconfig)),
            *("--wait", "--timeout", "3m"),
            # The CRDs may have been applied by hand before.
            *("--take-ownership", "--force-conflicts"),
            *(word for pair in pairs for word in ("--set-string", pair)),
        ]
        run(command)


def connect(state: State, namespace: str) -> None:
    """Gives a namespace Services `s3-data` and `s3-artifacts`, port 9000, and Secrets of the same names."""
    manifests = {"apiVersion": "v1", "kind": "List", "items": _manifests(state, namespace)}
    kubectl = [str(state.bin / "kubectl"), "--kubeconfig", str(state.kubeconfig)]
    run([*kubectl, "apply", "--namespace", namespace, "--filename", "-"], stdin=json.dumps(manifests))


def _manifests(state: State, namespace: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for name, server in s3.servers(state).items():
        host, _, port = server.endpoint.rpartition("//")[2].partition(":")
        meta = {"name": f"s3-{name}", "namespace": namespace}
        ports = [{"name": "s3", "port": int(port)}]
        found += [
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": meta,
                "spec": {"ports": [{"name": "s3", "port": _PORT, "targetPort": int(port)}]},
            },
            {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {**meta, "labels": {"kubernetes.io/service-name": meta["name"]}},
                "addressType": "IPv4",
                "ports": ports,
                "endpoints": [{"addresses": [host]}],
            },
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": meta,
                "stringData": {"AWS_ACCESS_KEY_ID": server.access_key, "AWS_SECRET_ACCESS_KEY": server.secret_key},
            },
        ]
    return found
