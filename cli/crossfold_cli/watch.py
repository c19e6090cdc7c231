"""Follow a Tune on a cluster, with the eyes of kubectl: whoever may get the objects may watch."""

import json
import subprocess
import time
from collections.abc import Callable
from typing import Any

from crossfold_cli import report
from crossfold_cli.display import Display
from crossfold_cli.errors import UsageError
from crossfold_cli.progress import Progress, last_progress
from crossfold_cli.view import node_of
from crossfold_operator.cluster.cache import Cache
from crossfold_operator.names import LABEL_TUNE, TERMINAL_TRAIN_RUN, TERMINAL_TUNE, Kind, TrainRunPhase

_EVERY_SECONDS = 2.0
_LOG_LINES = 40
"""Lines of a log that are read for the last epoch."""

Obj = dict[str, Any]


class Watch:
    """A Tune on a cluster and all below it, looked at again and again."""

    def __init__(self, name: str, kubectl: Callable[..., str]) -> None:
        self._name = name
        self._kubectl = kubectl
        self._epochs: dict[str, Progress] = {}

    def follow(self, display: Display) -> bool:
        """Show the Tune until it is over.

        Returns:
            Whether it ended well.

        Raises:
            UsageError: there is no such Tune, or kubectl cannot ask.
        """
        try:
            while True:
                cache, tune = self._look()
                display.show(node_of(tune, cache.children, self._progress))
                if (tune.get("status") or {}).get("phase") in TERMINAL_TUNE:
                    break
                time.sleep(_EVERY_SECONDS)
        finally:
            display.close()
        runs = [run for key in cache.keys(Kind.TRAIN_RUN) if (run := cache.get(key)) is not None]
        more = json.dumps({"spec": {"maxTrials": tune["spec"].get("maxTrials", 1) * 2}})
        go_on = f"kubectl patch tune {self._name} --type merge -p '{more}'"
        print(report.summary(tune, runs, lambda _: None, go_on))
        return report.succeeded(tune)

    def _look(self) -> tuple[Cache, Obj]:
        tune: Obj = json.loads(self._kubectl("get", "tune", self._name, "-o", "json"))
        below = self._kubectl("get", "crossvalidations,trainruns", "-l", f"{LABEL_TUNE}={self._name}", "-o", "json")
        cache = Cache()
        for obj in json.loads(below)["items"]:
            cache.put(obj)
        return cache, tune

    def _progress(self, run: Any) -> Progress | None:
        """The last epoch in the log of a run that trains; what was seen last for one that trained before."""
        name, status = run["metadata"]["name"], run.get("status") or {}
        phase = status.get("phase")
        if phase == TrainRunPhase.RUNNING:
            try:
                log = self._kubectl("logs", f"job/{status.get('job', name)}", f"--tail={_LOG_LINES}")
            except UsageError:
                log = ""  # the pod has just ended or is not there yet
            if (seen := last_progress(log.encode())) is not None:
                self._epochs[name] = seen
        return None if phase in TERMINAL_TRAIN_RUN else self._epochs.get(name)


def kubectl_in(namespace: str | None) -> Callable[..., str]:
    """Kubectl in a namespace (None: the one of the current context)."""
    where = ["--namespace", namespace] if namespace else []

    def run(*arguments: str) -> str:
        try:
            done = subprocess.run(["kubectl", *where, *arguments], capture_output=True, text=True, check=False)
        except FileNotFoundError:
            raise UsageError("kubectl is not on the PATH: install it, or add its folder to PATH") from None
        if done.returncode:
            raise UsageError(done.stderr.strip() or f"kubectl ended with {done.returncode}")
        return done.stdout

    return run
