"""Who may do what on the API server: keys, certificates and one token per component."""

import secrets
from dataclasses import dataclass
from pathlib import Path

from devcluster.files import PRIVATE, write, write_json
from devcluster.paths import State
from devcluster.shell import run

NODE_NAME = "devcluster"


@dataclass(frozen=True)
class Identity:
    """A user of the API server, and the groups that give it its rights."""

    user: str
    group: str = ""


# By the name of the kubeconfig file. Kubernetes itself binds roles to these names and groups.
IDENTITIES = {
    "admin": Identity("admin", "system:masters"),
    "kube-controller-manager": Identity("system:kube-controller-manager"),
    "kube-scheduler": Identity("system:kube-scheduler"),
    "kube-proxy": Identity("system:kube-proxy"),
    "kubelet": Identity(f"system:node:{NODE_NAME}", "system:nodes"),
    # Lists services, endpoint slices and namespaces: a role of its own for so little is not worth it here.
    "coredns": Identity("coredns", "system:masters"),
}


def service_account_key(state: State) -> Path:
    """The key that signs service-account tokens."""
    return state.config / "service-account.key"


def kubelet_client(state: State) -> tuple[Path, Path]:
    """The certificate, and its key, that the API server shows to the kubelet."""
    return state.config / "kubelet-client.crt", state.config / "kubelet-client.key"


def tokens_file(state: State) -> Path:
    """The API server's list of tokens."""
    return state.config / "tokens.csv"


def create(state: State) -> None:
    """Makes what is missing."""
    key = service_account_key(state)
    if not key.exists():
        write(key, run(["openssl", "genrsa", "2048"]), PRIVATE)
    certificate, certificate_key = kubelet_client(state)
    if not certificate.exists():
        # Signed by itself: the kubelet trusts exactly this certificate.
        request = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "3650"]
        subject = ["-subj", "/O=system:masters/CN=kube-apiserver", "-addext", "extendedKeyUsage=clientAuth"]
        run([*request, *subject, "-keyout", certificate_key, "-out", certificate])
        certificate_key.chmod(PRIVATE)
    if not tokens_file(state).exists():
        lines = [f'{secrets.token_hex(16)},{who.user},{name},"{who.group}"' for name, who in IDENTITIES.items()]
        write(tokens_file(state), "\n".join(lines) + "\n", PRIVATE)


def token(state: State, name: str) -> str:
    """The token of an identity."""
    lines = [line.split(",") for line in tokens_file(state).read_text().splitlines()]
    return next(fields[0] for fields in lines if fields[2] == name)


def write_kubeconfig(state: State, name: str, server: str, authority: str, path: Path) -> None:
    """Writes an identity's kubeconfig.

    Args:
        state: The cluster's state folder.
        name: The identity.
        server: The API server's URL.
        authority: Certificates to trust, base64 of PEM.
        path: Where to write it.
    """
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "devcluster", "cluster": {"server": server, "certificate-authority-data": authority}}],
        "users": [{"name": name, "user": {"token": token(state, name)}}],
        "contexts": [{"name": "devcluster", "context": {"cluster": "devcluster", "user": name}}],
        "current-context": "devcluster",
    }
    write_json(path, config, PRIVATE)
