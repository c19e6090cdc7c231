"""What each component is started with."""

from dataclasses import dataclass, field
from pathlib import Path

from devcluster import cgroups, credentials, s3
from devcluster.files import write_json
from devcluster.network import APISERVER_PORT, DNS_READY_PORT, Network
from devcluster.paths import State
from devcluster.runtime import SOCKET

# Collects garbage rarely while there is memory, often beyond a limit: half the CPU on a small machine.
_GO = {"GOGC": "300", "GOMEMLIMIT": "1GiB"}


@dataclass(frozen=True)
class Component:
    """A process of the node."""

    name: str
    arguments: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)


def etcd() -> Component:
    """The store. Without fsync: a cluster for tests need not survive a power cut, and disks may be slow."""
    options = {
        "name": "devcluster",
        "data-dir": "/var/lib/etcd",
        "listen-client-urls": "http://127.0.0.1:2379",
        "advertise-client-urls": "http://127.0.0.1:2379",
        "listen-peer-urls": "http://127.0.0.1:2380",
        "unsafe-no-fsync": "true",
        "auto-compaction-mode": "periodic",
        "auto-compaction-retention": "30m",
        "quota-backend-bytes": str(4 * 2**30),
        "log-level": "warn",
    }
    return Component("etcd", _flags(options), _GO)


def apiserver(state: State, network: Network) -> Component:
    """The API server; it signs its own serving certificate, which is therefore also what clients trust."""
    key = str(state.seen_by_node(credentials.service_account_key(state)))
    certificate, certificate_key = map(state.seen_by_node, credentials.kubelet_client(state))
    options = {
        "etcd-servers": "http://127.0.0.1:2379",
        "bind-address": "0.0.0.0",  # noqa: S104 (in the node's own network)
        "secure-port": str(APISERVER_PORT),
        "advertise-address": network.gateway,
        "service-cluster-ip-range": network.services,
        "cert-dir": str(state.seen_by_node(state.config / "apiserver")),
        "token-auth-file": str(state.seen_by_node(credentials.tokens_file(state))),
        "authorization-mode": "Node,RBAC",
        "enable-admission-plugins": "NodeRestriction",
        "service-account-issuer": "https://kubernetes.default.svc",
        "service-account-key-file": key,
        "service-account-signing-key-file": key,
        "kubelet-client-certificate": str(certificate),
        "kubelet-client-key": str(certificate_key),
        # logs and exec then need no DNS.
        "kubelet-preferred-address-types": "InternalIP",
        "allow-privileged": "true",
        "max-requests-inflight": "3000",
        "max-mutating-requests-inflight": "2000",
        "profiling": "false",
    }
    return Component("kube-apiserver", _flags(options), _GO)


def controller_manager(state: State, network: Network) -> Component:
    """The controllers. The default rate limits allow two Jobs a second; there is nobody here to be polite to."""
    options = {
        "kubeconfig": _kubeconfig(state, "kube-controller-manager"),
        "service-account-private-key-file": str(state.seen_by_node(credentials.service_account_key(state))),
        "root-ca-file": str(state.seen_by_node(authority(state))),
        "use-service-account-credentials": "true",
        "service-cluster-ip-range": network.services,
        "cluster-cidr": network.pods,
        "leader-elect": "false",
        "kube-api-qps": "2000",
        "kube-api-burst": "4000",
        "concurrent-job-syncs": "20",
        "bind-address": "127.0.0.1",
        "flex-volume-plugin-dir": "/var/lib/kubelet/volumeplugins",
        "profiling": "false",
    }
    return Component("kube-controller-manager", _flags(options), _GO)


def scheduler(state: State) -> Component:
    """The scheduler."""
    options = {
        "kubeconfig": _kubeconfig(state, "kube-scheduler"),
        "leader-elect": "false",
        "kube-api-qps": "2000",
        "kube-api-burst": "4000",
        "bind-address": "127.0.0.1",
        "profiling": "false",
    }
    return Component("kube-scheduler", _flags(options), _GO)


def containerd(state: State) -> Component:
    """The container runtime."""
    return Component("containerd", ("--config", str(state.seen_by_node(state.config / "containerd.toml"))))


def kubelet(state: State, network: Network) -> Component:
    """The kubelet, whose settings are a file."""
    certificate, _ = credentials.kubelet_client(state)
    config = state.config / "kubelet.json"
    write_json(config, kubelet_settings(state, network, str(state.seen_by_node(certificate))))
    options = {
        "config": str(state.seen_by_node(config)),
        "kubeconfig": _kubeconfig(state, "kubelet"),
        "hostname-override": credentials.NODE_NAME,
        "node-ip": network.gateway,
        "root-dir": "/var/lib/kubelet",
        "cert-dir": "/var/lib/kubelet/pki",
    }
    return Component("kubelet", _flags(options), {"GOMEMLIMIT": "512MiB"})


def kubelet_settings(state: State, network: Network, client_authority: str) -> dict[str, object]:
    """The kubelet's settings."""
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "containerRuntimeEndpoint": f"unix://{SOCKET}",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": False},
            "x509": {"clientCAFile": client_authority},
        },
        # Whoever shows that one certificate is the API server.
        "authorization": {"mode": "AlwaysAllow"},
        "clusterDNS": [network.gateway],
        "clusterDomain": "cluster.local",
        "resolvConf": "",
        "cgroupRoot": f"/{cgroups.name(state)}",
        "cgroupDriver": "cgroupfs",
        "failCgroupV1": False,
        "failSwapOn": False,
        "oomScoreAdj": 0,
        "maxPods": 250,
        "serializeImagePulls": False,
        "registryPullQPS": 0,
        "eventRecordQPS": 0,
        "kubeAPIQPS": 200,
        "kubeAPIBurst": 400,
        "volumePluginDir": "/var/lib/kubelet/volumeplugins",
        "makeIPTablesUtilChains": True,
        # A shared disk is often fuller than a node's would be. Images are not collected at all: nothing could pull
        # those that were imported a second time.
        "evictionHard": {"memory.available": "100Mi"}
        | dict.fromkeys(("nodefs.available", "imagefs.available", "nodefs.inodesFree"), "1%"),
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "shutdownGracePeriod": "0s",
    }


def proxy(state: State, network: Network) -> Component:
    """kube-proxy: services have addresses."""
    options = {
        "kubeconfig": _kubeconfig(state, "kube-proxy"),
        "hostname-override": credentials.NODE_NAME,
        "proxy-mode": "iptables",
        "cluster-cidr": network.pods,
        # Answers between two pods of one bridge would otherwise pass by the address translation.
        "masquerade-all": "true",
        # Zero: leave the machine's limits as they are.
        "conntrack-max-per-core": "0",
        "conntrack-min": "0",
        "bind-address-hard-fail": "false",
        "healthz-bind-address": "127.0.0.1:10256",
        "metrics-bind-address": "127.0.0.1:10249",
    }
    return Component("kube-proxy", _flags(options), _GO)


def coredns(state: State, network: Network) -> Component:
    """CoreDNS: services have names. Any other name does not exist, and is said not to at once."""
    corefile = state.config / "Corefile"
    corefile.write_text(f"""cluster.local in-addr.arpa {{
    bind {network.gateway}
    errors
    ready {network.gateway}:{DNS_READY_PORT}
    kubernetes {{
        kubeconfig {_kubeconfig(state, "coredns")}
        pods insecure
    }}
    cache 5
}}
. {{
    bind {network.gateway}
    template ANY ANY {{
        rcode NXDOMAIN
    }}
}}
""")
    return Component("coredns", ("-conf", str(state.seen_by_node(corefile))), _GO)


def s3_servers(state: State) -> list[Component]:
    """The S3 servers."""
    return [
        Component(s3.component(name), s3.arguments(state.seen_by_node(state.s3 / name), server), s3.environment(server))
        for name, server in s3.servers(state).items()
    ]


def authority(state: State) -> Path:
    """The certificate that the API server signed for itself."""
    return state.config / "apiserver/apiserver.crt"


def _kubeconfig(state: State, name: str) -> str:
    return str(state.seen_by_node(state.config / f"{name}.kubeconfig"))


def _flags(options: dict[str, str]) -> tuple[str, ...]:
    return tuple(f"--{name}={value}" for name, value in options.items())
