"""The machine within the machine: namespaces that hold the node's processes, mounts and network devices.

One process, `pause`, holds them open. Whatever the cluster does (mounts, bridges, iptables rules, containers) it does
in there, and the kernel undoes all of it when that process ends.
"""

import os
import shlex
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from devcluster import cgroups
from devcluster.console import DevclusterError
from devcluster.network import Network
from devcluster.paths import NODE_STATE, State
from devcluster.processes import pid_namespace, processes
from devcluster.shell import run

_BRIDGE = "cni0"
_NAMESPACES = ("--mount", "--net", "--ipc", "--uts", "--pid")

_START_S = 10.0
_EXEC_S = 2.0
_END_S = 20.0

# What the node's own /run, /var/lib and /var/log are: the host's stay untouched. The working directory is the state
# folder, so that relative names hold even when one of these mounts covers the checkout.
_ENTER_SCRIPT = f"""set -e
mount --make-rshared /
mount -t proc proc /proc
mount -t tmpfs -o mode=755 tmpfs /run
mkdir {NODE_STATE} /run/lock
mount --bind . {NODE_STATE}
mount --bind lib /var/lib
mount --bind log /var/log
exec {NODE_STATE}/bin/pause "$PWD"
"""


class Node:
    """The namespaces of one cluster."""

    def __init__(self, state: State) -> None:
        """Looks at nothing yet.

        Args:
            state: The cluster's state folder; the holder's arguments name it, which is how it is found again.
        """
        self._state = state

    @property
    def link(self) -> str:
        """The host's end of the link to the node."""
        return f"cf-{self._state.key}"

    def pid(self) -> int | None:
        """The holder's process, as the host numbers it."""
        wanted = [str(NODE_STATE / "bin/pause"), str(self._state.root)]
        for pid, words in processes():
            if words == wanted:
                return pid
        return None

    def create(self, network: Network) -> None:
        """Makes the namespaces and their link to the host; leaves them alone where they are."""
        if self.pid() is not None:
            return
        cgroups.create(self._state)
        unshare = f"exec unshare {' '.join(_NAMESPACES)} --fork --propagation private sh -c"
        script = f"{cgroups.join_script(self._state)}; {unshare} {shlex.quote(_ENTER_SCRIPT)}"
        log = self._state.logs / "node.log"
        with log.open("a") as file:
            subprocess.Popen(
                ["setsid", "sh", "-c", script],
                cwd=self._state.root, stdin=subprocess.DEVNULL, stdout=file, stderr=file,
            )  # fmt: skip
        deadline = time.monotonic() + _START_S
        while self.pid() is None:
            if time.monotonic() > deadline:
                raise DevclusterError(f"the node's namespaces do not come up: see {log}")
            time.sleep(0.02)
        self._connect(network)

    def _connect(self, network: Network) -> None:
        run(["ip", "link", "add", self.link, "type", "veth", "peer", "name", "eth0", "netns", str(self.pid())])
        run(["ip", "addr", "add", f"{network.link_host}/30", "dev", self.link])
        run(["ip", "link", "set", self.link, "up"])
        # There is no default route: the node has no way out of this machine, on purpose.
        self.run(["sh", "-ec", "\n".join([
            "hostname devcluster",
            "ip link set lo up",
            f"ip addr add {network.link_node}/30 dev eth0",
            "ip link set eth0 up",
            f"ip link add {_BRIDGE} type bridge",
            f"ip addr add {network.gateway}/17 dev {_BRIDGE}",
            f"ip link set {_BRIDGE} up",
            "echo 1 > /proc/sys/net/ipv4/ip_forward",
        ])])  # fmt: skip
        run(["ip", "route", "add", network.whole, "via", network.link_node, "dev", self.link])

    def enter_command(self, command: Sequence[str | Path]) -> list[str]:
        """The command line that runs a command in the node."""
        pid = self.pid()
        if pid is None:
            raise DevclusterError("the cluster is not up: python3 -m devcluster up")
        return ["nsenter", "--target", str(pid), *_NAMESPACES, "--", *map(str, command)]

    def run(self, command: Sequence[str | Path], stdin: str | None = None) -> str:
        """Runs a command in the node to its end; returns its output."""
        return run(self.enter_command(command), stdin=stdin)

    def start(self, component: str, arguments: Sequence[str], env: Mapping[str, str]) -> None:
        """Starts a component in the node, to go on after this process; its output goes to its log file."""
        command = [str(NODE_STATE / "bin" / component), *arguments]
        log = self._state.logs / f"{component}.log"
        # setsid forks, and the component becomes a child of the holder: nothing of ours waits for it.
        start = shlex.join(self.enter_command(["setsid", "--fork", *command]))
        script = f"{cgroups.join_script(self._state)}; exec {start} </dev/null >>{shlex.quote(str(log))} 2>&1"
        plain = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}
        subprocess.run(["sh", "-c", script], env=plain | dict(env), check=True)
        # setsid comes back before the component is one: whoever looks now must not take it for dead.
        deadline = time.monotonic() + _EXEC_S
        while not self.running(component) and time.monotonic() < deadline:
            time.sleep(0.01)

    def running(self, component: str) -> bool:
        """Whether the component has a process."""
        wanted = str(NODE_STATE / "bin" / component)
        inside = pid_namespace(self.pid())
        found = (pid for pid, words in processes() if words[0] == wanted)
        return inside is not None and any(pid_namespace(pid) == inside for pid in found)

    def destroy(self) -> None:
        """Ends everything in the node, and with it the namespaces."""
        pid = self.pid()
        if pid is not None:
            inside = pid_namespace(pid)
            os.kill(pid, signal.SIGKILL)
            deadline = time.monotonic() + _END_S
            while any(pid_namespace(other) == inside for other, _ in processes()):
                if time.monotonic() > deadline:
                    raise DevclusterError("processes of the node do not end: run `down` again")
                time.sleep(0.05)
        # The kernel removes the link with the network namespace, a moment later; by name it is gone at once.
        subprocess.run(["ip", "link", "delete", self.link], capture_output=True, check=False)
