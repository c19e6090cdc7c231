"""What of the dev cluster can be told without one."""

import ipaddress
import json
import os
import stat
import tarfile
from io import BytesIO
from pathlib import Path

import pytest

from devcluster import builds, images, kind, loader, network, oci, s3
from devcluster.console import DevclusterError
from devcluster.files import PRIVATE, link, write
from devcluster.golang import version_of
from devcluster.paths import State


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ("go version go1.26.8 linux/amd64", (1, 26)),
        ("go version go1.27rc1 linux/arm64", (1, 27)),
        ("go version devel +abc", (0, 0)),
        ("", (0, 0)),
    ],
)
def test_go_version(said: str, version: tuple[int, int]) -> None:
    assert version_of(said) == version


def test_network_avoids_what_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "_taken", list)
    first = network.choose("0000aa")
    assert network.choose("0000aa") == first
    monkeypatch.setattr(network, "_taken", lambda: [ipaddress.IPv4Network(first.pods)])
    assert network.choose("0000aa") == network.Network(first.octet + 1)
    monkeypatch.setattr(network, "_taken", lambda: [ipaddress.IPv4Network("10.0.0.0/8")])
    with pytest.raises(DevclusterError, match="all in use"):
        network.choose("0000aa")


def test_network_parts_do_not_overlap() -> None:
    addresses = network.Network(200)
    pods, services = ipaddress.ip_network(addresses.pods), ipaddress.ip_network(addresses.services)
    assert not pods.overlaps(services)
    assert ipaddress.ip_address(addresses.gateway) in pods
    assert ipaddress.ip_address(addresses.link_host) not in services
    assert ipaddress.ip_address(addresses.link_node) not in services


def test_checkouts_have_different_clusters() -> None:
    here, there = State(Path("/a/.state")), State(Path("/b/.state"))
    assert here.key != there.key
    assert here.lock != there.lock
    assert here.seen_by_node(here.config / "x") == Path("/run/crossfold/config/x")


def test_chain_ids_as_the_image_specification_has_them() -> None:
    # The specification: ChainID(L0) = DiffID(L0), ChainID(L0|L1) = Digest(ChainID(L0) + " " + DiffID(L1)).
    layers = ["sha256:" + "a" * 64, "sha256:" + "b" * 64]
    first, second = loader.chain_ids(layers)
    assert first == layers[0]
    assert second == oci._digest(f"{layers[0]} {layers[1]}".encode())


def test_layers_are_read_lowest_first(tmp_path: Path) -> None:
    write(tmp_path / "overlay-images/images.json", json.dumps([{"id": "image", "layer": "top"}]))
    records = [
        {"id": "top", "parent": "base", "diff-digest": "sha256:2", "diff-size": 20},
        {"id": "base", "diff-digest": "sha256:1", "diff-size": 10},
    ]
    write(tmp_path / "overlay-layers/layers.json", json.dumps(records))
    found = loader.layers_of(tmp_path, "image")
    assert [(layer.digest, layer.size) for layer in found] == [("sha256:1", 10), ("sha256:2", 20)]
    assert found[0].folder == tmp_path / "overlay/base/diff"


def test_archive_is_a_whole_image_and_always_the_same(tmp_path: Path) -> None:
    program = tmp_path / "pause"
    program.write_bytes(b"program")
    content = oci.archive("host/pause:1", {"/pause": program}, "/pause")
    assert content == oci.archive("host/pause:1", {"/pause": program}, "/pause")
    with tarfile.open(fileobj=BytesIO(content)) as tar:
        files = {name: (tar.extractfile(name) or BytesIO()).read() for name in tar.getnames()}
    entry = json.loads(files["index.json"])["manifests"][0]
    assert entry["annotations"]["io.containerd.image.name"] == "host/pause:1"
    manifest = json.loads(files[_blob(entry)])
    config = json.loads(files[_blob(manifest["config"])])
    assert config["rootfs"]["diff_ids"] == [manifest["layers"][0]["digest"]]
    assert len(files[_blob(manifest["layers"][0])]) == manifest["layers"][0]["size"]


def test_archive_by_reference_leaves_the_layers_out() -> None:
    content, digest = oci.reference_archive("host/image:dev", b"{}", [("sha256:" + "1" * 64, 5)])
    with tarfile.open(fileobj=BytesIO(content)) as tar:
        blobs = [name for name in tar.getnames() if name.startswith("blobs/")]
    assert len(blobs) == 2
    assert f"blobs/sha256/{digest.removeprefix('sha256:')}" in blobs


def _blob(descriptor: dict[str, str]) -> str:
    return f"blobs/sha256/{descriptor['digest'].removeprefix('sha256:')}"


def test_an_image_is_keyed_by_content_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = images.Image("operator", ("code",))
    keys = []
    for checkout in ("one", "two"):
        root = tmp_path / checkout
        write(root / "images/operator.Dockerfile", "FROM scratch\n")
        write(root / "code/module.py", "x = 1\n")
        write(root / "code/__pycache__/module.pyc", checkout)
        os.utime(root / "code/module.py", (1, len(checkout) * ord(checkout[0])))
        monkeypatch.setattr(images, "REPOSITORY", root)
        keys.append(images.stage(image, tmp_path / f"{checkout}-staged"))
    assert keys[0] == keys[1]
    staged = tmp_path / "two-staged/code"
    assert [path.name for path in staged.iterdir()] == ["module.py"]
    assert (staged / "module.py").stat().st_mtime == (tmp_path / "one-staged/code/module.py").stat().st_mtime
    write(tmp_path / "two/code/module.py", "x = 2\n")
    assert images.stage(image, tmp_path / "three-staged") != keys[0]


def test_s3_servers_differ_and_their_keys_are_private(tmp_path: Path) -> None:
    state = State(tmp_path / ".state")
    with pytest.raises(DevclusterError, match="no cluster here"):
        s3.servers(state)
    s3.create(state, "10.200.0.1")
    made = s3.servers(state)
    s3.create(state, "10.200.0.1")
    assert s3.servers(state) == made
    data, artifacts = made["data"], made["artifacts"]
    for field in ("endpoint", "region", "bucket", "access_key", "secret_key"):
        assert getattr(data, field) != getattr(artifacts, field)
    assert stat.S_IMODE((state.config / "s3.json").stat().st_mode) == PRIVATE
    assert (state.s3 / "data" / data.bucket).is_dir()
    assert data.secret_key not in " ".join(s3.arguments(state.s3 / "data", data))


def test_link_gives_the_new_content_and_leaves_the_old_one_alone(tmp_path: Path) -> None:
    target = tmp_path / "program"
    for content in ("old", "new"):
        source = tmp_path / content
        source.write_text(content)
        link(source, target)
        link(source, target)
        assert target.read_text() == content
    assert (tmp_path / "old").read_text() == "old"


def test_every_program_is_pinned() -> None:
    for program in (builds.KUBERNETES, builds.HELM, builds.COREDNS, builds.S3, builds.PAUSE, builds.KIND):
        module = builds._SOURCES / program.module
        assert (module / "go.sum").exists()
        if not program.package.startswith("."):
            assert program.package in (module / "go.mod").read_text()


@pytest.mark.parametrize(("wish", "expected"), [("kind", True), ("node", False)])
def test_the_kind_of_cluster_can_be_wished_for(
    wish: str, expected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CROSSFOLD_CLUSTER", wish)
    assert kind.chosen(State(tmp_path)) is expected


def test_a_cluster_stays_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CROSSFOLD_CLUSTER", raising=False)
    monkeypatch.setattr(kind, "engine_answers", lambda: True)
    state = State(tmp_path)
    assert kind.chosen(state)
    state.config.mkdir()
    assert not kind.chosen(state)
    (state.config / "kind").touch()
    assert kind.chosen(state)


def test_a_wish_that_nobody_knows_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CROSSFOLD_CLUSTER", "minikube")
    with pytest.raises(DevclusterError, match="kind or node"):
        kind.chosen(State(tmp_path))


def test_kind_is_driven_from_creation_to_deletion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand-ins for docker, kind and kubectl write down how they are called; there is no engine behind them."""
    log, stubs = tmp_path / "log", tmp_path / "stubs"
    stubs.mkdir()
    answers = {"docker": '[{"IPAM": {"Config": [{"Gateway": "fc00::1"}, {"Gateway": "172.18.0.1"}]}}]'}
    for name in ("docker", "kind", "kubectl", "s3"):
        write(stubs / name, f"#!/bin/sh\necho {name} \"$*\" >> {log}\necho '{answers.get(name, '')}'\n", mode=0o755)
    monkeypatch.setenv("PATH", str(stubs), prepend=os.pathsep)
    programs = {"kind": stubs / "kind"}
    monkeypatch.setattr(kind, "built", lambda program: programs.get(program.name, stubs / "s3"))
    state = State(tmp_path / ".state")

    kind.up(state)
    reference = "crossfold.internal/operator:abc"
    for _ in range(2):
        kind.load_image(state, tmp_path, "images/operator.Dockerfile", reference, {"VERSION": "1"})
    assert s3.servers(state)["artifacts"].endpoint == "http://172.18.0.1:9001"
    kind.down(state)

    cluster = kind.name(state)
    called = [line for line in log.read_text().splitlines() if line.split()[0] in ("docker", "kind")]
    assert called == [
        "kind get clusters",
        f"kind create cluster --config {images.REPOSITORY}/kind-config.yaml --wait 180s --name {cluster}",
        f"kind export kubeconfig --name {cluster} --kubeconfig {state.kubeconfig}",
        "docker network inspect kind",
        next(line for line in called if line.startswith("kind load image-archive")),
        f"docker build --file {tmp_path}/images/operator.Dockerfile --tag {reference} --build-arg VERSION=1 {tmp_path}",
        f"kind load docker-image {reference} --name {cluster}",
        f"kind delete cluster --name {cluster} --kubeconfig {state.kubeconfig}",
    ]
