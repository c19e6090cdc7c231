"""The cluster's addresses, chosen so that clusters can stand side by side."""

import ipaddress
import json
from dataclasses import dataclass

from devcluster.console import DevclusterError
from devcluster.shell import run

# 10.200.0.0/16 to 10.249.0.0/16: rarely used by sites, and not the ranges that Docker and kind take.
_FIRST, _COUNT = 200, 50

APISERVER_PORT = 6443
DNS_READY_PORT = 8181


@dataclass(frozen=True)
class Network:
    """One /16, cut into pods, services and the link between the host and the node."""

    octet: int

    @property
    def whole(self) -> str:
        """What the host sends to the node."""
        return f"10.{self.octet}.0.0/16"

    @property
    def pods(self) -> str:
        """The pods' addresses."""
        return f"10.{self.octet}.0.0/17"

    @property
    def services(self) -> str:
        """The services' addresses; the first is the API server's."""
        return f"10.{self.octet}.128.0/18"

    @property
    def gateway(self) -> str:
        """The node: where pods and the host find the API server, DNS and S3."""
        return f"10.{self.octet}.0.1"

    @property
    def link_host(self) -> str:
        """The host's end of the link."""
        return f"10.{self.octet}.255.1"

    @property
    def link_node(self) -> str:
        """The node's end of the link."""
        return f"10.{self.octet}.255.2"

    @property
    def apiserver(self) -> str:
        """The API server's URL."""
        return f"https://{self.gateway}:{APISERVER_PORT}"

    @property
    def dns_ready(self) -> str:
        """The URL that tells whether DNS answers."""
        return f"http://{self.gateway}:{DNS_READY_PORT}/ready"


def choose(key: str) -> Network:
    """A network that nothing on this machine uses yet, the same for the same key wherever possible."""
    taken = _taken()
    start = int(key, 16)
    for attempt in range(_COUNT):
        network = Network(_FIRST + (start + attempt) % _COUNT)
        if not any(ipaddress.ip_network(network.whole).overlaps(other) for other in taken):
            return network
    last = _FIRST + _COUNT - 1
    raise DevclusterError(f"10.{_FIRST}.0.0/16 to 10.{last}.0.0/16 are all in use on this machine (ip route)")


def _taken() -> list[ipaddress.IPv4Network]:
    routes = json.loads(run(["ip", "-json", "-4", "route", "show", "table", "all"]))
    targets = [route["dst"] for route in routes if route.get("dst", "default") != "default"]
    return [ipaddress.IPv4Network(target, strict=False) for target in targets]
