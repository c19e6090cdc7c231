"""What the operator may do, and how its pods are confined."""

import json

import pytest

from tests.chart.conftest import one, pick

CLUSTER_WIDE = {}
NAMESPACED = {"watchNamespace": "team-a"}


def roles(objects):
    return pick(objects, "Role") + pick(objects, "ClusterRole")


def operator_rules(objects):
    """Rules that are bound to the operator's service account."""
    bound = {b["roleRef"]["name"] for b in pick(objects, "RoleBinding") + pick(objects, "ClusterRoleBinding")}
    return [rule for role in roles(objects) if role["metadata"]["name"] in bound for rule in role["rules"]]


@pytest.mark.parametrize("values", [CLUSTER_WIDE, NAMESPACED], ids=["cluster-wide", "namespaced"])
def test_no_wildcard_and_no_secret(render, values):
    rules = [rule for role in roles(render(**values)) for rule in role["rules"]]
    said = {part: {entry for rule in rules for entry in rule[part]} for part in ("apiGroups", "resources", "verbs")}
    assert {"crossfold.dev", "tunes", "get"} <= set.union(*said.values())
    assert not [entry for entries in said.values() for entry in entries if "*" in entry]
    assert not {"secrets", "pods/exec", "pods/log", "serviceaccounts/token"} & said["resources"]
    assert not {"escalate", "bind", "impersonate"} & said["verbs"]


@pytest.mark.parametrize("values", [CLUSTER_WIDE, NAMESPACED], ids=["cluster-wide", "namespaced"])
def test_exactly_what_it_needs(render, values):
    rights = {
        (group, resource, verb)
        for rule in operator_rules(render(**values))
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    expected = {("crossfold.dev", "tunes", v) for v in ("get", "list", "watch")}
    for plural in ("crossvalidations", "trainruns"):
        expected |= {("crossfold.dev", plural, v) for v in ("get", "list", "watch", "create", "patch")}
    for plural in ("tunes", "crossvalidations", "trainruns"):
        expected |= {
            ("crossfold.dev", f"{plural}/status", "patch"),
            ("crossfold.dev", f"{plural}/finalizers", "update"),
        }
    expected |= {("batch", "jobs", v) for v in ("get", "list", "watch", "create", "delete")}
    expected |= {("", "pods", v) for v in ("get", "list", "watch")}
    expected |= {("", "services", v) for v in ("get", "list", "watch", "create")}
    expected |= {("", "events", v) for v in ("get", "list", "create", "patch")}
    expected |= {("coordination.k8s.io", "leases", v) for v in ("get", "update", "create")}
    if values == CLUSTER_WIDE:
        expected |= {("authentication.k8s.io", "tokenreviews", "create")}
    assert rights == expected


def test_namespaced_it_has_no_right_beyond_its_namespaces(render):
    objects = render(**NAMESPACED)
    assert not pick(objects, "ClusterRoleBinding")
    assert {r["metadata"]["namespace"] for r in pick(objects, "Role")} == {"team-a", "crossfold-system"}
    (subject,) = one(objects, "RoleBinding", "crossfold")["subjects"]
    assert subject == {"kind": "ServiceAccount", "name": "crossfold", "namespace": "crossfold-system"}


@pytest.mark.parametrize(
    ("values", "reporting"),
    [
        (CLUSTER_WIDE, True),
        (NAMESPACED, False),
        ({**CLUSTER_WIDE, "progress": {"enabled": False}}, False),
        ({**NAMESPACED, "progress": {"enabled": True}}, True),
    ],
    ids=["cluster-wide", "namespaced", "refused", "asked for"],
)
def test_live_progress_comes_with_the_one_right_that_it_takes(render, values, reporting):
    objects = render(**values)
    (container,) = one(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    (url,) = [e.get("value", "") for e in container["env"] if e["name"] == "CROSSFOLD_PROGRESS_URL"]
    found = [r for r in pick(objects, "ClusterRole") if r["metadata"]["name"].endswith("-progress")]
    assert bool(url) is reporting
    assert [role["rules"] for role in found] == [
        [{"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]}]
    ] * reporting


def test_without_cluster_roles_a_namespaced_install_has_none(render):
    objects = render(**NAMESPACED, rbac={"aggregateToDefaultRoles": False}, crds={"install": False})
    assert {"Deployment", "Role", "RoleBinding"} <= {o["kind"] for o in objects}
    assert [o["kind"] for o in objects if not o["metadata"].get("namespace")] == []


def test_the_lease_that_may_be_written_is_the_one_that_is_held(render):
    from crossfold_operator.main import lease_name
    from crossfold_operator.settings import Settings

    for values in (CLUSTER_WIDE, NAMESPACED):
        role = one(render(**values), "Role", "crossfold-leader")
        (named,) = [rule for rule in role["rules"] if "resourceNames" in rule]
        assert named["resourceNames"] == [lease_name(Settings(namespace=values.get("watchNamespace", "")))]


def test_users_get_rights_through_the_default_roles(render):
    objects = render()
    view = one(objects, "ClusterRole", "crossfold-system-crossfold-view")
    edit = one(objects, "ClusterRole", "crossfold-system-crossfold-edit")
    assert {"aggregate-to-view", "aggregate-to-edit", "aggregate-to-admin"} == aggregated(view)
    assert {"aggregate-to-edit", "aggregate-to-admin"} == aggregated(edit)
    assert {v for rule in view["rules"] for v in rule["verbs"]} == {"get", "list", "watch"}
    # A status is the operator's to write.
    for role in (view, edit):
        resources = {resource for rule in role["rules"] for resource in rule["resources"]}
        assert {"tunes", "crossvalidations", "trainruns"} <= resources
        assert not [resource for resource in resources if "status" in resource]


def aggregated(role):
    prefix = "rbac.authorization.k8s.io/"
    return {
        k.removeprefix(prefix) for k, v in role["metadata"]["labels"].items() if k.startswith(prefix) and v == "true"
    }


def pods(objects):
    deployment = one(objects, "Deployment")
    template = deployment["spec"]["template"]
    return [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "operator", **template["metadata"]},
            "spec": template["spec"],
        },
        one(objects, "Pod"),
    ]


def test_pods_are_confined(render):
    for pod in pods(render()):
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] == 65532
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        (container,) = [*spec["containers"], *spec.get("initContainers", [])]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["limits"]["memory"]
        assert container["resources"]["requests"]


@pytest.mark.cluster
def test_pods_are_admitted_where_pods_are_restricted(render, kubectl, namespace):
    kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    kubectl("create", "serviceaccount", "crossfold", "-n", namespace)
    for pod in pods(render(namespace=namespace)):
        pod["metadata"]["namespace"] = namespace
        kubectl("create", "--dry-run=server", "-f", "-", stdin=pod)


@pytest.mark.cluster
@pytest.mark.parametrize("values", [CLUSTER_WIDE, NAMESPACED], ids=["cluster-wide", "namespaced"])
def test_the_api_server_takes_every_manifest(render, kubectl, namespace, values):
    values = dict.fromkeys(values, namespace)
    # The pod of `helm test` needs the account to exist; it is admitted above.
    objects = [o for o in render(namespace=namespace, **values) if o["kind"] != "Pod"]
    document = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    kubectl(
        "apply",
        "--server-side",
        "--force-conflicts",
        "--dry-run=server",
        "--validate=strict",
        "-f",
        "-",
        stdin=document,
    )
