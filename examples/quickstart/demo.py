"""What `make demo` does once cluster and images are there: the chart, the data set, a Tune, and its result.

Run again it changes nothing: what is there is found, and a Tune that is over is only shown.
"""

import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from devcluster import install, s3
from devcluster.console import DevclusterError
from devcluster.paths import default_state

HERE = Path(__file__).resolve().parent
NAMESPACE = "default"
NAME = "quickstart"
DATA = "landsat"


class Clock:
    """Headlines with the time since the start, and the step that is under way."""

    def __init__(self) -> None:
        """Starts now."""
        self._start = time.monotonic()
        self.step = ""

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self._start

    def title(self, text: str) -> None:
        """A headline with an empty line before it."""
        self.step = text.partition(":")[0]
        minutes, seconds = divmod(int(self.seconds), 60)
        print(f"\n=== {minutes}:{seconds:02} {text}", flush=True)


def baselines(folder: Path) -> list[dict[str, Any]]:
    """What predictors without a model score, as make_dataset.py left it beside the data."""
    found: list[dict[str, Any]] = json.loads((folder / "baselines.json").read_text())["predictors"]
    return found


def comparison(predictors: list[dict[str, Any]], best: dict[str, Any]) -> str:
    """The best trial beside the predictors without a model, as bars."""
    rows = [(p["name"], p["mean"], "") for p in predictors]
    rows.append((f"trial {best['trial']}", float(best["score"]), f" ± {float(best['std']):.3f}"))
    return "\n".join(f"  {name:<8} {score:.3f}{spread:<8} {'█' * round(40 * score)}" for name, score, spread in rows)


def main() -> int:
    """Run the demo; returns the exit status."""
    clock = Clock()
    try:
        return demo(clock)
    except subprocess.CalledProcessError as error:
        # What the program had to say stands above.
        said = f"{shlex.join(map(str, error.cmd))} ended with {error.returncode}"
    except (DevclusterError, OSError) as error:
        said = str(error)
    print(
        f"\nstep {clock.step} failed after {clock.seconds:.0f} s: {said}\n"
        '  More is in .state/log/ and in `kubectl get events -A` (first: eval "$(python3 -m devcluster env)").',
        file=sys.stderr,
    )
    return 1


def demo(clock: Clock) -> int:
    """The demo's steps; returns the exit status.

    Raises:
        DevclusterError: the chart could not be installed.
        subprocess.CalledProcessError: a program failed; it has said why.
    """
    title = clock.title
    state = default_state()
    servers = s3.servers(state)
    environment = {
        **os.environ,
        "KUBECONFIG": str(state.kubeconfig),
        "PATH": f"{state.bin}:{os.environ['PATH']}",
    }

    def run(*command: str | Path, **extra: str) -> None:
        subprocess.run([str(word) for word in command], env=environment | extra, check=True)

    title("operator: helm upgrade --install crossfold charts/crossfold")
    install.install(state)
    install.connect(state, NAMESPACE)

    title("data: a Landsat scene with its land cover, as tiles in an S3 bucket")
    data = servers["data"]
    run(
        *(sys.executable, HERE / "make_dataset.py", f"s3://{data.bucket}/{DATA}"),
        *("--endpoint", data.endpoint, "--region", data.region),
        AWS_ACCESS_KEY_ID=data.access_key,
        AWS_SECRET_ACCESS_KEY=data.secret_key,
    )

    title(f"search: kubectl apply -f {HERE.relative_to(Path.cwd()) / 'tune.yaml'}")
    run("kubectl", "apply", "-n", NAMESPACE, "-f", HERE / "tune.yaml")
    followed = subprocess.run(
        [Path(sys.executable).parent / "crossfold", "watch", NAME, "-n", NAMESPACE], env=environment, check=False
    )
    if followed.returncode:
        return followed.returncode

    shown = subprocess.run(
        ["kubectl", "get", "tune", NAME, "-n", NAMESPACE, "-o", "json"],
        env=environment,
        check=True,
        stdout=subprocess.PIPE,
    )
    status = json.loads(shown.stdout)["status"]
    best = status["best"]
    title("is it better than no model? val/JaccardIndex, mean over the folds")
    # The bucket of the dev cluster's S3 server is a folder.
    print(comparison(baselines(state.s3 / "data" / data.bucket / DATA), best))

    title("what kubectl shows")
    run("kubectl", "get", "tunes,crossvalidations,trainruns", "-n", NAMESPACE)

    decision = status.get("lastDecision")
    if decision is not None:
        number = str(decision["trial"])
        title(f"why was trial {number} not finished? crossfold explain tune/{NAME} --trial {number}")
        run(Path(sys.executable).parent / "crossfold", "explain", f"tune/{NAME}", "--trial", number, "-n", NAMESPACE)

    title(f"done in {clock.seconds:.0f} s. What to type next")
    folder = state.s3 / "artifacts" / best["artifactUri"].removeprefix("s3://")
    print(
        f"""  eval "$(python3 -m devcluster env)"            # kubectl, helm and the S3 servers in this shell
  . .venv/bin/activate                           # the command crossfold, too
  kubectl get tunes                              # one line: the best score and how far it is
  kubectl get cv                                 # the trials
  kubectl get tr                                 # the runs of all trials: one per fold and seed
  kubectl describe tune {NAME}               # conditions, counters, the ranking, Events
  crossfold explain tune/{NAME}              # the story of the whole search
  kubectl logs job/{best["crossValidation"]}-f0s42             # what a trainer said
  ls {folder.relative_to(Path.cwd())}
  kubectl delete tune {NAME}                 # artifacts stay
  make cluster-down                              # takes the cluster away, and all of its files"""
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
