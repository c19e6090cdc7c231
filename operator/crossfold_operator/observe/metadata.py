"""What any object says of itself: its owner, whether it is being deleted, and whom a change of it concerns. Pure."""

from collections.abc import Mapping
from typing import Any

from crossfold_operator import names
from crossfold_operator.names import Kind

Obj = Mapping[str, Any]


def controller_of(obj: Obj) -> Mapping[str, Any] | None:
    """The controller owner's reference."""
    return next((o for o in obj["metadata"].get("ownerReferences", ()) if o.get("controller")), None)


def parent_of(obj: Obj) -> Mapping[str, Any] | None:
    """The controller owner, where it is one of our own kinds. What anything else owns is a root all the same."""
    owner = controller_of(obj)
    if owner is None or not owner.get("apiVersion", "").startswith(f"{names.GROUP}/"):
        return None
    return owner if owner["kind"] in list(names.OWN_KINDS) else None


def is_deleting(obj: Obj) -> bool:
    """Whether deletion of the object has begun."""
    return bool(obj["metadata"].get("deletionTimestamp"))


def wakes(obj: Obj) -> list[tuple[Kind, str, str]]:
    """Keys (kind, namespace, name) to reconcile after a change of this object: itself, its owner, its root."""
    meta = obj["metadata"]
    namespace, labels = meta.get("namespace", ""), meta.get("labels", {})
    owner = parent_of(obj)
    found: list[tuple[Kind, str, str]] = []
    match Kind(obj["kind"]):
        case Kind.TUNE | Kind.CROSS_VALIDATION | Kind.TRAIN_RUN as kind:
            found.append((kind, namespace, meta["name"]))
            if owner:
                found.append((Kind(owner["kind"]), namespace, owner["name"]))
            if kind is Kind.TRAIN_RUN and owner and labels.get(names.LABEL_TUNE):
                found.append((Kind.TUNE, namespace, labels[names.LABEL_TUNE]))
        case Kind.JOB | Kind.SERVICE:
            if owner and owner["kind"] == Kind.TRAIN_RUN:
                found.append((Kind.TRAIN_RUN, namespace, owner["name"]))
        case Kind.POD:
            if run := labels.get(names.LABEL_TRAIN_RUN):
                found.append((Kind.TRAIN_RUN, namespace, run))
    return found
