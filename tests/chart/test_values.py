"""Which values the chart takes, and what they do."""

import subprocess

import pytest
import yaml

from tests.chart.conftest import Refused, one, pick
from tests.conftest import CHART

DIGEST = "sha256:" + "0" * 64


def test_lint(helm):
    subprocess.run([str(helm), "lint", "--strict", str(CHART)], check=True, capture_output=True)


def test_rendering_the_same_twice_gives_the_same(render):
    assert render() == render()


def test_what_is_installed_by_default(render):
    found = sorted((o["kind"], o["metadata"]["name"]) for o in render())
    assert found == [
        ("ClusterRole", "crossfold-system-crossfold"),
        ("ClusterRole", "crossfold-system-crossfold-edit"),
        ("ClusterRole", "crossfold-system-crossfold-progress"),
        ("ClusterRole", "crossfold-system-crossfold-view"),
        ("ClusterRoleBinding", "crossfold-system-crossfold"),
        ("ClusterRoleBinding", "crossfold-system-crossfold-progress"),
        ("CustomResourceDefinition", "crossvalidations.crossfold.dev"),
        ("CustomResourceDefinition", "trainruns.crossfold.dev"),
        ("CustomResourceDefinition", "tunes.crossfold.dev"),
        ("Deployment", "crossfold"),
        ("Pod", "crossfold-selfcheck"),
        ("Role", "crossfold-leader"),
        ("RoleBinding", "crossfold-leader"),
        ("Service", "crossfold"),
        ("ServiceAccount", "crossfold"),
    ]


@pytest.mark.parametrize(
    "values",
    [
        {"image": {"repository": "r.example:5000/a/b", "tag": DIGEST, "pullPolicy": "Never"}},
        {"trainerImage": f"r.example/trainer@{DIGEST}"},
        {"watchNamespace": "team-a"},
        {"resources": {"limits": {"memory": "1Gi", "cpu": 2}, "requests": {}}},
        {"tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}]},
        {"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}}},
        {"imagePullSecrets": [{"name": "registry"}], "nodeSelector": {"a": "b"}, "podAnnotations": {"a": "b"}},
        {"replicas": 2},
        {"replicas": 0},
        {"leaderElection": {"enabled": False}},
        {"progress": {"enabled": False}},
        {"progress": {"enabled": "auto", "seconds": 60}},
        {"logFormat": "text", "logLevel": "DEBUG"},
        {"crds": {"install": False}},
        {"serviceAccount": {"create": False, "name": "mine"}},
        {"global": {"anything": 1}},
    ],
    ids="-".join,
)
def test_accepted(render, values):
    assert pick(render(**values), "Deployment")


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"trainerimage": "x"}, "trainerimage"),
        ({"image": {"repo": "x"}}, "repo"),
        ({"image": {"repository": ""}}, "repository"),
        ({"image": {"tag": "a b"}}, "tag"),
        ({"image": {"pullPolicy": "always"}}, "pullPolicy"),
        ({"image": "crossfold/operator"}, "image"),
        ({"watchNamespace": ["a"]}, "watchNamespace"),
        ({"watchNamespace": "Team_A"}, "watchNamespace"),
        ({"crds": {"keeps": True}}, "keeps"),
        ({"crds": {"keep": "yes"}}, "keep"),
        ({"logLevel": "info"}, "logLevel"),
        ({"logFormat": "xml"}, "logFormat"),
        ({"resources": {"limit": {}}}, "limit"),
        ({"operator": {"workers": 0}}, "workers"),
        ({"operator": {"worker": 4}}, "worker"),
        ({"replicas": -1}, "replicas"),
        ({"progress": {"enabled": "yes"}}, "enabled"),
        ({"progress": {"seconds": 0}}, "seconds"),
        ({"progress": {"url": "http://x"}}, "url"),
        ({"replicas": 2, "leaderElection": {"enabled": False}}, "leaderElection"),
        ({"nodeSelector": {"a": 1}}, "nodeSelector"),
        ({"podAnnotations": {"a": True}}, "podAnnotations"),
        ({"tolerations": [{"kee": "x"}]}, "tolerations"),
        ({"affinity": {"nodeaffinity": {}}}, "affinity"),
        ({"operator": {"kubeApiQps": 0}}, "kubeApiQps"),
        ({"operator": {"kubeApiBurst": 0.5}}, "kubeApiBurst"),
        ({"imagePullSecrets": ["registry"]}, "imagePullSecrets"),
        ({"service": {"port": 99999}}, "port"),
        ({"operator": {"searchWorkers": 0}}, "searchWorkers"),
        ({"limits": {"runsPerNamespace": -1}}, "runsPerNamespace"),
        ({"limits": {"trials": 5}}, "trials"),
        ({"serviceAccount": {"create": False}}, "serviceAccount.name"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_refused_by_name(render, values, named):
    with pytest.raises(Refused, match=named):
        render(**values)


def test_every_value_is_described_in_the_schema():
    schema = yaml.safe_load((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert set(schema["properties"]) == set(values) | {"global"}


def environment(objects):
    (container,) = one(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    return {e["name"]: e.get("value") for e in container["env"]}


def test_values_become_the_operators_settings(render):
    from crossfold_operator.settings import Settings

    given = environment(
        render(
            watchNamespace="team-a",
            trainerImage="t:1",
            operator={
                "workers": 4,
                "resyncSeconds": 60,
                "startupSeconds": 90,
                "reconcileSeconds": 30,
                "searchWorkers": 2,
                "searchSeconds": 20,
                "kubeApiQps": 20,
                "kubeApiBurst": 30,
            },
            limits={"trialsPerTune": 1000, "parallelismPerTune": 50, "runsPerNamespace": 2000000},
            leaderElection={"enabled": False},
            progress={"enabled": True, "seconds": 30},
            service={"port": 9090},
            logFormat="text",
            logLevel="ERROR",
        )
    )
    settings = Settings.from_environment({k: v for k, v in given.items() if v is not None})
    assert settings.model_dump(exclude={"pod_name", "pod_namespace"}) == {
        "trainer_image": "t:1",
        "namespace": "team-a",
        "startup_seconds": 90,
        "workers": 4,
        "resync_seconds": 60,
        "reconcile_seconds": 30,
        "search_workers": 2,
        "search_seconds": 20,
        "trials_per_tune": 1000,
        "parallelism_per_tune": 50,
        "runs_per_namespace": 2000000,
        "kube_api_qps": 20,
        "kube_api_burst": 30,
        "http_port": 8080,
        "progress_url": "http://crossfold.crossfold-system.svc:9090",
        "progress_seconds": 30,
        "leader_election": False,
        "log_format": "text",
        "log_level": "ERROR",
    }


def test_no_setting_is_out_of_reach(render):
    from crossfold_operator.settings import PREFIX, Settings

    assert {PREFIX + name.upper() for name in Settings.model_fields} <= set(environment(render()))


def test_images_by_tag_digest_and_default(render):
    def image(**values):
        (container,) = one(render(**values), "Deployment")["spec"]["template"]["spec"]["containers"]
        return container["image"]

    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    assert image() == f"crossfold/operator:{version}"
    assert image(image={"repository": "r/o", "tag": "x"}) == "r/o:x"
    assert image(image={"repository": "r/o", "tag": DIGEST}) == f"r/o@{DIGEST}"
    assert environment(render())["CROSSFOLD_TRAINER_IMAGE"] == f"crossfold/trainer:{version}"


def test_the_charts_version_is_the_projects():
    import tomllib

    project = tomllib.loads((CHART.parent.parent / "pyproject.toml").read_text())["project"]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["version"] == chart["appVersion"] == project["version"]


def test_crds_are_kept_unless_told_otherwise(render):
    def kept(**crds):
        found = pick(render(crds=crds), "CustomResourceDefinition")
        return [o["metadata"].get("annotations", {}).get("helm.sh/resource-policy") for o in found]

    assert kept() == ["keep"] * 3
    assert kept(keep=False) == [None] * 3
    assert kept(install=False) == []


def test_the_charts_crds_are_the_generated_ones(render):
    generated = {
        o["metadata"]["name"]: o
        for o in map(yaml.safe_load, (p.read_text() for p in CHART.parent.parent.glob("crds/*.yaml")))
    }
    rendered = pick(render(), "CustomResourceDefinition")
    assert len(generated) == 3
    assert {crd["metadata"]["name"]: crd["spec"] for crd in rendered} == {n: o["spec"] for n, o in generated.items()}


def test_two_versions_never_work_at_the_same_time(render):
    assert one(render(), "Deployment")["spec"]["strategy"] == {"type": "Recreate"}


def test_long_names_stay_within_their_limits(render):
    objects = render(release="r" * 53, namespace="n" * 63)
    names = {obj["kind"]: obj["metadata"]["name"] for obj in objects if obj["metadata"]["name"].startswith("r")}
    assert {"Deployment", "ServiceAccount", "Role"} <= set(names)
    assert max(map(len, (obj["metadata"]["name"] for obj in objects))) <= 63, names


def test_releases_beside_each_other_share_no_name(render):
    def names(release, **values):
        own = render(release=release, namespace="ops", crds={"install": False}, **values)
        return {(o["kind"], o["metadata"].get("namespace"), o["metadata"]["name"]) for o in own}

    assert not names("a", watchNamespace="team-a") & names("b", watchNamespace="team-b")
