"""`python3 -m devcluster VERB`."""

import argparse
import json
import os
import shlex
import sys
import traceback
from dataclasses import asdict

import devcluster
from devcluster import images, installer, lifecycle, s3
from devcluster.console import DevclusterError, say
from devcluster.files import write
from devcluster.node import Node
from devcluster.paths import cache, default_state

_ALIASES = {"access_key": "accessKey", "secret_key": "secretKey"}


def main() -> int:
    """Runs one verb; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python3 -m devcluster", description=devcluster.__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("up", help="bring the cluster up; does only what is missing")
    verbs.add_parser("down", help="take the cluster down, leave nothing; built programs and images stay cached")
    verbs.add_parser("status", help="what runs, as JSON; exit status 1 unless all of it does")
    verbs.add_parser("kubeconfig", help="the path of the kubeconfig")
    verbs.add_parser("env", help='shell exports: eval "$(python3 -m devcluster env)"')
    verbs.add_parser("s3", help="the S3 servers' endpoints and keys, as JSON")
    verbs.add_parser("images", help="build the images and load them into the cluster")
    verbs.add_parser("uv", help="the path of the uv that locks/uv.txt pins, installed first if need be")
    inside = verbs.add_parser("node", help="run a command in the node: node ctr images ls")
    inside.add_argument("command", nargs=argparse.REMAINDER)
    arguments = parser.parse_args()
    # A person's PATH often lacks where Debian puts ip, iptables and containerd's friends.
    os.environ["PATH"] += ":/usr/local/sbin:/usr/sbin:/sbin"
    try:
        return _run(arguments)
    except DevclusterError as error:
        say(f"devcluster: {error}")
        return 1
    except KeyboardInterrupt:
        say("devcluster: interrupted; the same command goes on where this one was")
        return 130
    except Exception as error:  # noqa: BLE001 - nobody at a terminal wants a traceback; whoever mends it does
        log = cache() / "log" / "devcluster-error.log"
        write(log, traceback.format_exc())
        say(f"devcluster: {type(error).__name__}: {error}\n      (traceback: {log})")
        return 1


def _run(arguments: argparse.Namespace) -> int:
    state = default_state()
    match arguments.verb:
        case "up":
            lifecycle.up(state)
        case "down":
            lifecycle.down(state)
        case "status":
            report = lifecycle.status(state)
            print(json.dumps(report, indent=2))
            return 0 if report["up"] else 1
        case "kubeconfig":
            print(state.kubeconfig)
        case "env":
            print(_exports())
        case "s3":
            print(json.dumps(_s3_servers(), indent=2))
        case "images":
            print(json.dumps(images.images(state), indent=2))
        case "uv":
            print(installer.uv())
        case "node":
            command = Node(state).enter_command(arguments.command or ["bash"])
            os.execvp(command[0], command)  # noqa: S606 (nsenter, by list)
        case verb:
            raise AssertionError(verb)
    return 0


def _s3_servers() -> dict[str, dict[str, str]]:
    return {name: _aliased(asdict(server)) for name, server in s3.servers(default_state()).items()}


def _aliased(fields: dict[str, str]) -> dict[str, str]:
    return {_ALIASES.get(name, name): value for name, value in fields.items()}


def _exports() -> str:
    state = default_state()
    values = {"KUBECONFIG": str(state.kubeconfig)}
    for name, server in s3.servers(state).items():
        for key, value in asdict(server).items():
            values[f"CROSSFOLD_S3_{name.upper()}_{key.upper()}"] = value
    lines = [f"export {name}={shlex.quote(value)}" for name, value in values.items()]
    return "\n".join([*lines, f'export PATH={shlex.quote(str(state.bin))}:"$PATH"'])


if __name__ == "__main__":
    sys.exit(main())
