"""Up, down and status, of whichever cluster this checkout has, one command at a time."""

import shutil
from datetime import UTC, datetime

from devcluster import cluster, kind
from devcluster.console import say, step
from devcluster.files import write
from devcluster.locks import exclusive
from devcluster.paths import State


def up(state: State) -> None:
    """Brings the cluster up; does only what is missing."""
    with exclusive(state.lock):
        (kind if kind.chosen(state) else cluster).up(state)
        write(state.ready, datetime.now(UTC).isoformat() + "\n")
    say(f"  the cluster is up: export KUBECONFIG={state.kubeconfig}")


def down(state: State) -> None:
    """Takes the cluster down and removes everything of it; what is built stays cached."""
    with exclusive(state.lock), step("cluster down"):
        state.ready.unlink(missing_ok=True)
        (kind if kind.chosen(state) else cluster).down(state)
        if state.root.exists():
            shutil.rmtree(state.root)


def status(state: State) -> dict[str, object]:
    """What runs."""
    running = (kind if kind.chosen(state) else cluster).running(state)
    return {"up": all(running.values()) and state.ready.exists(), "state": str(state.root), "components": running}
