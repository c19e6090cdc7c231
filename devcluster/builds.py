"""The programs of the cluster, built from Go modules, once per version."""

import hashlib
import os
import platform
from dataclasses import dataclass
from pathlib import Path

from devcluster.console import step
from devcluster.golang import go, run_version
from devcluster.locks import exclusive
from devcluster.paths import cache
from devcluster.shell import follow, run

_SOURCES = Path(__file__).resolve().parent / "go"
_KUBERNETES_VERSION = "1.36.3"
# No debugging information: nobody debugs these, and it takes time to make.
_COMPILER_FLAGS = "-gcflags=all=-dwarf=false"


@dataclass(frozen=True)
class Program:
    """A program to build."""

    name: str
    package: str
    """Import path, or path relative to the module."""
    title: str
    version_variables: tuple[str, ...] = ()
    """Packages whose version variables the linker sets."""
    module: str = "programs"
    """The folder under go/ whose go.mod pins it. What shares a module shares its packages: each is compiled once."""


KUBERNETES = Program(
    "kubernetes",
    "./kubernetes",
    f"Kubernetes {_KUBERNETES_VERSION} (etcd, control plane, kubelet, kube-proxy, kubectl)",
    ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version"),
)
PAUSE = Program("pause", "./pause", "pause")
REACH = Program("reach", "./reach", "reach")
COREDNS = Program("coredns", "./coredns", "CoreDNS 1.15.0")
S3 = Program("s3", "./s3", "the S3 server (versitygw 1.8.0)")
HELM = Program("helm", "helm.sh/helm/v4/cmd/helm", "Helm 4.3.1")
KIND = Program("kind", "sigs.k8s.io/kind", "kind", module="kind")

# The names under which the one Kubernetes binary is called.
KUBERNETES_COMPONENTS = (
    *("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"),
    *("kubelet", "kube-proxy"),
)
KUBERNETES_NAMES = (*KUBERNETES_COMPONENTS, "kubectl")


def built(program: Program) -> Path:
    """The program's binary, built first if this version of it has not been built for this user."""
    compiler = go()
    target = cache() / "bin" / f"{program.name}-{_content_key(program, compiler)}" / program.name
    if target.exists():
        return target
    # One build at a time: each takes every core there is.
    with exclusive(cache() / "locks" / "build"):
        if not target.exists():
            _build(program, compiler, target)
    return target


def _content_key(program: Program, compiler: Path) -> str:
    digest = hashlib.sha256()
    digest.update(f"{run_version(compiler)} {platform.machine()} {program}".encode())
    module = _SOURCES / program.module
    own = module / program.package if program.package.startswith(".") else None
    files = [module / "go.mod", module / "go.sum", *(sorted(own.glob("*.go")) if own else [])]
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def _build(program: Program, compiler: Path, target: Path) -> None:
    module = _SOURCES / program.module
    env = os.environ | {
        "CGO_ENABLED": "0",
        # The module's own go.mod and go.sum decide, and the compiler at hand: nothing of the person's own Go set-up.
        "GOWORK": "off",
        "GOTOOLCHAIN": "local",
        "GOFLAGS": "-mod=readonly -buildvcs=false",
    }
    partial = target.with_name(target.name + ".partial")
    target.parent.mkdir(parents=True, exist_ok=True)
    with step(f"building {program.title}") as shown:
        shown.detail = "downloading modules"
        packages = run([compiler, "list", "-deps", program.package], env=env, cwd=module).split()
        compiled = 0

        def on_line(line: str) -> None:
            nonlocal compiled
            # -v prints one import path per package compiled; packages in Go's own cache are silent.
            if " " not in line:
                compiled += 1
                shown.detail = f"{compiled} of at most {len(packages)} packages compiled"

        flags = ["-v", "-trimpath", _COMPILER_FLAGS, "-ldflags", _linker_flags(program)]
        log = cache() / "log" / f"build-{program.name}.log"
        command = ["nice", "-n", "10", str(compiler), "build", *flags, "-o", str(partial), program.package]
        follow(command, on_line, env=env, cwd=module, log=log)
    partial.rename(target)


def _linker_flags(program: Program) -> str:
    major, minor, _ = _KUBERNETES_VERSION.split(".")
    values = {"gitVersion": f"v{_KUBERNETES_VERSION}", "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
    # Without symbol tables: half the size.
    flags = ["-s", "-w"]
    for package in program.version_variables:
        flags += [f"-X {package}.{name}={value}" for name, value in values.items()]
    return " ".join(flags)
