"""Plan item -> child resource or Job manifest. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from crossfold_operator import names
from crossfold_operator.api.crossvalidation import CrossValidationSpec
from crossfold_operator.api.fields import NamedValue
from crossfold_operator.api.template import TemplateSpec
from crossfold_operator.api.trainrun import TrainRunSpec
from crossfold_operator.api.tune import TuneSpec
from crossfold_operator.names import API_VERSIONS, CACHE_VOLUME, CONTAINER, Kind
from crossfold_operator.observe.attempts import FAILURE_RULES
from crossfold_operator.observe.metadata import parent_of
from crossfold_operator.plan.pruning import curve_epochs
from crossfold_trainer.contract import progress
from crossfold_trainer.contract.base import Model
from crossfold_trainer.contract.config import (
    CACHE_DIR,
    CONFIG_VARIABLE,
    CREDENTIALS_DIR,
    IMAGE_VARIABLE,
    RunConfig,
    with_digest,
)
from crossfold_trainer.contract.data import CacheSpec

Obj = dict[str, Any]

TRAINER_USER = 65532
"""User and group of the trainer's image."""
MANAGED = {names.LABEL_MANAGED_BY: "crossfold"}
RENDEZVOUS_PORT = 29500
"""Where the first of several nodes waits for the others; torchrun's."""
_PROGRESS_TOKEN: Obj = {
    "serviceAccountToken": {
        "audience": progress.AUDIENCE,
        "expirationSeconds": 3600,
        "path": progress.TOKEN_FILE,
    }
}
"""Says which pod it is, to this operator alone."""
_RESTRICTED: Obj = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
"""What the restricted profile of a namespace asks of a container, and a root file system that nobody writes to."""
_SHARED = ("objective", "data", "trainer", "artifacts", "tracking")


def dump(model: Model) -> Obj:
    """A model as the JSON of a manifest: defaults left out, as a person would write it."""
    return model.model_dump(mode="json", exclude_defaults=True)


def owner_reference(owner: Mapping[str, Any]) -> Obj:
    """The controller's reference that a child carries."""
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def _child(kind: Kind, owner: Mapping[str, Any], name: str, labels: Mapping[str, str], spec: Obj) -> Obj:
    return {
        "apiVersion": API_VERSIONS[kind],
        "kind": str(kind),
        "metadata": {
            "name": name,
            "namespace": owner["metadata"]["namespace"],
            "labels": {**labels, **MANAGED},
            "ownerReferences": [owner_reference(owner)],
        },
        "spec": spec,
    }


def named_values(values: Mapping[str, Any]) -> list[Obj]:
    """Hyperparameters as a named list, sorted by name."""
    return [{"name": name, "value": value} for name, value in sorted(values.items())]


def by_name(values: Sequence[NamedValue]) -> dict[str, Any]:
    """A named list of hyperparameters as a mapping."""
    return {item.name: item.value for item in values}


def cross_validation(tune: Mapping[str, Any], spec: TuneSpec, number: int, parameters: Mapping[str, Any]) -> Obj:
    """A trial of a Tune. It carries no template: the Tune writes every run from its own spec."""
    name = tune["metadata"]["name"]
    labels = {names.LABEL_TUNE: name, names.LABEL_TRIAL: str(number)}
    content: Obj = {
        "hyperparameters": named_values({**by_name(spec.fixed), **parameters}),
        "crossValidation": dump(spec.cross_validation),
        **{key: dump(getattr(spec, key)) for key in _SHARED},
    }
    if spec.suspend:
        content["suspend"] = True
    return _child(Kind.CROSS_VALIDATION, tune, names.cross_validation_name(name, number), labels, content)


def train_run(
    cv: Mapping[str, Any],
    spec: TuneSpec | CrossValidationSpec,
    hyperparameters: Sequence[Mapping[str, Any]],
    unit: tuple[int, int],
    image: str,
) -> Obj:
    """A run of a CrossValidation.

    Args:
        cv: the CrossValidation that owns it.
        spec: the root's spec (a Tune's or a standalone CrossValidation's).
        hyperparameters: the CrossValidation's, as stored.
        unit: fold and seed.
        image: the trainer image that the root resolved.
    """
    fold, seed = unit
    above = cv["metadata"]
    tune = parent_of(cv)
    labels = {
        names.LABEL_CROSS_VALIDATION: above["name"],
        names.LABEL_FOLD: str(fold),
        names.LABEL_SEED: str(seed),
        names.LABEL_RUNS: str(len(spec.cross_validation.units)),
        names.LABEL_ROOT: above["uid"] if tune is None else tune["uid"],
        **{
            key: above.get("labels", {})[key]
            for key in (names.LABEL_TUNE, names.LABEL_TRIAL)
            if key in above.get("labels", {})
        },
    }
    folds = spec.cross_validation
    epochs = curve_epochs(spec, unit) if isinstance(spec, TuneSpec) else []
    content = {
        "fold": fold,
        "seed": seed,
        "folds": folds.folds,
        "foldMethod": str(folds.fold_method),
        "hyperparameters": [dict(item) for item in hyperparameters],
        **{key: dump(getattr(spec, key)) for key in _SHARED},
        **({"curveEpochs": epochs} if epochs else {}),
        "template": {**dump(spec.template), "image": image},
        "retries": dump(spec.retries),
    }
    return _child(Kind.TRAIN_RUN, cv, names.train_run_name(above["name"], fold, seed), labels, content)


def run_config(run: Mapping[str, Any], spec: TrainRunSpec) -> RunConfig:
    """The configuration of a run, with its digest and its place among the artifacts.

    Raises:
        ValueError: a hyperparameter is unknown or its value does not fit.
    """
    meta = run["metadata"]
    labels = meta.get("labels", {})
    tune, cv = labels.get(names.LABEL_TUNE, ""), labels.get(names.LABEL_CROSS_VALIDATION, "")
    config = RunConfig(
        run=meta["name"],
        namespace=meta["namespace"],
        tune=tune,
        cross_validation=cv,
        root=labels.get(names.LABEL_ROOT, ""),
        trial=_number(labels.get(names.LABEL_TRIAL)),
        runs=_number(labels.get(names.LABEL_RUNS)) or 0,
        fold=spec.fold,
        seed=spec.seed,
        folds=spec.folds,
        fold_method=spec.fold_method,
        hyperparameters=by_name(spec.hyperparameters),
        curve_epochs=spec.curve_epochs,
        owner=meta["uid"],
        out_of_memory=spec.retries.out_of_memory,
        grace_period_seconds=spec.template.termination_grace_period_seconds,
        **{key: getattr(spec, key) for key in _SHARED},
    )
    return with_digest(config, "/".join(part for part in (meta["namespace"], tune, cv) if part))


def _number(label: str | None) -> int | None:
    """The number that a label says; None where there is none (a person may write labels too)."""
    return int(label) if label and label.isdecimal() else None


def job(
    run: Mapping[str, Any], spec: TrainRunSpec, config: RunConfig, attempt: int, image: str, *, progress_url: str = ""
) -> Obj:
    """The Job of one attempt of a run; it reports its progress to the URL, where there is one."""
    meta, template, nodes = run["metadata"], spec.template, spec.trainer.nodes
    labels = {**template.labels, **_own_labels(run), names.LABEL_ATTEMPT: str(attempt), **MANAGED}
    annotations: Obj = {"annotations": dict(template.annotations)} if template.annotations else {}
    content: Obj = {
        "backoffLimit": 0,
        "podReplacementPolicy": "Failed",
        "podFailurePolicy": {"rules": [_failure_rule(code) for code, _ in FAILURE_RULES]},
        "template": {
            "metadata": {"labels": labels, **annotations},
            "spec": _pod_spec(template, config.model_copy(update={"attempt": attempt}), image, progress_url),
        },
    }
    if nodes > 1:
        content |= {"completionMode": "Indexed", "completions": nodes, "parallelism": nodes}
        _join_nodes(content["template"]["spec"], meta["name"], names.job_name(meta["name"], attempt))
    if template.active_deadline_seconds is not None:
        content["activeDeadlineSeconds"] = template.active_deadline_seconds
    manifest = _child(Kind.JOB, run, names.job_name(meta["name"], attempt), labels, content)
    manifest["metadata"] |= annotations
    return manifest


def service(run: Mapping[str, Any]) -> Obj:
    """The headless Service by which the pods of a run of several nodes find each other, before they are ready."""
    name = run["metadata"]["name"]
    content = {
        "clusterIP": "None",
        "publishNotReadyAddresses": True,
        "selector": {names.LABEL_TRAIN_RUN: name},
        "ports": [{"name": "rendezvous", "port": RENDEZVOUS_PORT}],
    }
    return _child(Kind.SERVICE, run, name, _own_labels(run), content)


def _own_labels(run: Mapping[str, Any]) -> dict[str, str]:
    meta = run["metadata"]
    own = {key: value for key, value in meta.get("labels", {}).items() if key.startswith(f"{names.GROUP}/")}
    return {**own, names.LABEL_TRAIN_RUN: meta["name"]}


def _join_nodes(pod: Obj, run: str, job_name: str) -> None:
    """Tell a pod, in place, where the first one is: an Indexed Job calls it {job}-0, below its Service."""
    pod["subdomain"] = run
    first = [
        {"name": "MASTER_ADDR", "value": f"{job_name}-0.{run}"},
        {"name": "MASTER_PORT", "value": str(RENDEZVOUS_PORT)},
    ]
    (container,) = pod["containers"]
    container["env"][2:2] = first


def _failure_rule(code: int | None) -> Obj:
    if code is None:
        return {"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    return {
        "action": "FailJob",
        "onExitCodes": {"containerName": CONTAINER, "operator": "In", "values": [int(code)]},
    }


def _cache_volume(cache: CacheSpec) -> Obj:
    if cache.host_path:
        return {"hostPath": {"path": cache.host_path, "type": "DirectoryOrCreate"}}
    if cache.claim_name:
        return {"persistentVolumeClaim": {"claimName": cache.claim_name}}
    return {"emptyDir": {"sizeLimit": cache.size_limit}}


def _restricted(container: Mapping[str, Any]) -> Obj:
    """A container with the trainer's security settings, as far as it has none of its own."""
    return {**container, "securityContext": {**_RESTRICTED, **container.get("securityContext", {})}}


def _pod_spec(template: TemplateSpec, config: RunConfig, image: str, progress_url: str) -> Obj:
    volumes: list[Obj] = [
        {"name": "tmp", "emptyDir": {}},
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": template.shm_size}},
    ]
    mounts: list[Obj] = [
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 -- the pod's own
        {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108
    ]
    for side in ("data", "artifacts"):
        reference = getattr(config, side).secret_ref
        if reference is not None:
            volumes.append({"name": f"{side}-credentials", "secret": {"secretName": reference.name}})
            mounts.append({"name": f"{side}-credentials", "mountPath": f"{CREDENTIALS_DIR}/{side}", "readOnly": True})
    for tracker, secret in config.tracking.secrets.items():
        # Optional: a Secret that is missing costs a run its tracker, not its start.
        volumes.append({"name": f"{tracker}-credentials", "secret": {"secretName": secret, "optional": True}})
        mounts.append({"name": f"{tracker}-credentials", "mountPath": f"{CREDENTIALS_DIR}/{tracker}", "readOnly": True})
    reporting: list[Obj] = []
    if progress_url:
        reporting.append({"name": progress.URL_VARIABLE, "value": progress_url})
        volumes.append({"name": "progress-token", "projected": {"sources": [_PROGRESS_TOKEN]}})
        mounts.append({"name": "progress-token", "mountPath": progress.TOKEN_FOLDER, "readOnly": True})
    cache = config.data.cache
    if cache is not None:
        volumes.append({"name": CACHE_VOLUME, **_cache_volume(cache)})
        mounts.append({"name": CACHE_VOLUME, "mountPath": CACHE_DIR})
    security: Obj = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    if cache is not None and cache.claim_name:
        # A claim's file system belongs to root: the group lets the trainer's user write there.
        security |= {"fsGroup": TRAINER_USER, "fsGroupChangePolicy": "OnRootMismatch"}
    container: Obj = {
        "name": CONTAINER,
        "image": image,
        "env": [
            {"name": CONFIG_VARIABLE, "value": config.model_dump_json()},
            {"name": IMAGE_VARIABLE, "value": image},
            *reporting,
            *(dump(variable) for variable in template.env),
        ],
        "resources": {k: dict(v) for k in ("limits", "requests") if (v := getattr(template.resources, k))},
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": _RESTRICTED,
        "volumeMounts": [*mounts, *(dump(mount) for mount in template.volume_mounts)],
    }
    if template.image_pull_policy:
        container["imagePullPolicy"] = template.image_pull_policy
    pod: Obj = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": bool(template.service_account_name),
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": template.termination_grace_period_seconds,
        "securityContext": security,
        "containers": [container],
        "volumes": [*volumes, *(dict(volume) for volume in template.volumes)],
    }
    if template.command:
        container["command"] = list(template.command)
    if template.args:
        container["args"] = list(template.args)
    if template.env_from:
        container["envFrom"] = [dict(source) for source in template.env_from]
    optional: Obj = {
        "initContainers": [_restricted(one) for one in template.init_containers],
        "nodeSelector": dict(template.node_selector),
        "tolerations": [dump(t) for t in template.tolerations],
        "affinity": template.affinity,
        "imagePullSecrets": [dump(s) for s in template.image_pull_secrets],
        "priorityClassName": template.priority_class_name,
        "serviceAccountName": template.service_account_name,
        "runtimeClassName": template.runtime_class_name,
    }
    return {**pod, **{key: value for key, value in optional.items() if value}}
