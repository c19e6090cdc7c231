"""Where objects live in the API, and what of them is worth remembering."""

from crossfold_operator import names
from crossfold_operator.cluster.base import Key, Obj
from crossfold_operator.names import Kind

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
_POD_METADATA = (
    "name",
    "namespace",
    "uid",
    "labels",
    "ownerReferences",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "resourceVersion",
)
_POD_STATUS = (
    "phase",
    "conditions",
    "containerStatuses",
    "initContainerStatuses",
    "reason",
    "message",
    "startTime",
)


def collection(kind: Kind, namespace: str = "") -> str:
    """Path of all objects of a kind, in one namespace or in all of them."""
    api_version = names.API_VERSIONS[kind]
    root = f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
    scope = f"/namespaces/{namespace}" if namespace else ""
    return f"{root}{scope}/{names.PLURALS[kind]}"


def path_of(key: Key, subresource: str = "") -> str:
    """Path of one object or of its subresource."""
    path = f"{collection(key.kind, key.namespace)}/{key.name}"
    return f"{path}/{subresource}" if subresource else path


def slim(kind: Kind, obj: Obj) -> Obj:
    """What the operator reads of an object; says its kind, which items of a list do not.

    Bulk is left out: field managers, kubectl's copy of the manifest, the pod template of a Job (a pure function of
    its run, never compared) and nearly all of a pod's spec.
    """
    about = {"apiVersion": names.API_VERSIONS[kind], "kind": kind.value}
    metadata: Obj = obj["metadata"]
    if kind is Kind.POD:
        status = obj.get("status") or {}
        spec = obj.get("spec") or {}
        return about | {
            "metadata": {name: metadata[name] for name in _POD_METADATA if name in metadata},
            "spec": {"nodeName": spec["nodeName"]} if spec.get("nodeName") else {},
            "status": {name: status[name] for name in _POD_STATUS if name in status},
        }
    kept = {name: value for name, value in metadata.items() if name != "managedFields"}
    if LAST_APPLIED in kept.get("annotations", {}):
        kept["annotations"] = {name: value for name, value in kept["annotations"].items() if name != LAST_APPLIED}
    slimmed = {**obj, **about, "metadata": kept}
    if kind is Kind.JOB and "spec" in obj:
        slimmed["spec"] = {name: value for name, value in obj["spec"].items() if name != "template"}
    return slimmed
