"""A trainer that computes its score from its hyperparameters, with all the manners of a real one and none of its work.

It resumes, repeats a result that is there, saves on SIGTERM, and writes one line per training that it completed into
trained.txt above the artifacts. FAKE_SECONDS is how long an epoch takes; after epoch FAKE_PAUSE it waits until it is
ended; FAKE_CRASH makes it fail.
"""

import json
import math
import os
import signal
import sys
import time
from pathlib import Path

from crossfold_trainer.contract.config import CONFIG_VARIABLE, TERMINATION_VARIABLE, RunConfig
from crossfold_trainer.contract.curve import CurvePoint, curve_of
from crossfold_trainer.contract.exits import Exit
from crossfold_trainer.contract.metrics import Direction
from crossfold_trainer.contract.progress import ProgressReport
from crossfold_trainer.contract.result import RunResult
from crossfold_trainer.contract.sending import sender


def main() -> int:
    interrupted: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: interrupted.append(number))
    config = RunConfig.model_validate_json(os.environ[CONFIG_VARIABLE])
    said = Path(os.environ[TERMINATION_VARIABLE])
    if os.environ.get("FAKE_CRASH"):
        print("a line of the log, of many\n" * 100, flush=True)
        raise RuntimeError(os.environ["FAKE_CRASH"])
    folder = Path(config.artifact_uri)
    folder.mkdir(parents=True, exist_ok=True)
    result, checkpoint = folder / "result.json", folder / "last.ckpt"
    if result.exists():
        said.write_text(result.read_text())
        return Exit.OK
    values = config.hyperparameters
    score = 1 / (1 + abs(math.log10(float(values.get("learning_rate", 1e-3))) + 3)) - 0.01 * config.fold
    report = ProgressReport(
        digest=config.digest,
        epoch=0,
        epochs=config.trainer.max_epochs,
        step=0,
        fraction=0,
        score=score,
        epoch_of_score=0,
    )
    tell = sender(config)
    assert tell is not None
    curve: list[CurvePoint] = []
    done = json.loads(checkpoint.read_text())["epoch"] if checkpoint.exists() else 0
    for epoch in range(done + 1, config.trainer.max_epochs + 1):
        time.sleep(float(os.environ.get("FAKE_SECONDS", "0.02")))
        print(f"epoch {epoch}/{config.trainer.max_epochs} loss=0.1 score={score:.4f} best 0.1s", flush=True)
        checkpoint.write_text(json.dumps({"epoch": epoch}))
        # The score comes closer with every epoch; it may be compared at each.
        scores = [(at, score - 0.3 / at) for at in range(1, epoch + 1)]
        curve = curve_of(scores, [at for at in config.curve_epochs if at <= epoch], Direction.MAXIMIZE)
        now = {"epoch": epoch, "step": epoch, "fraction": epoch / report.epochs, "curve": curve}
        tell(report.model_copy(update=now).text())
        while str(epoch) == os.environ.get("FAKE_PAUSE") and not interrupted:
            time.sleep(0.05)
        if interrupted:
            return Exit.INTERRUPTED
    outcome = RunResult(
        digest=config.digest,
        data_digest="d",
        score=score,
        values={"val/JaccardIndex": score},
        epoch=config.trainer.max_epochs - 1,
        epochs=config.trainer.max_epochs,
        curve=curve,
        artifact_uri=config.artifact_uri,
    )
    with (Path(config.artifacts.uri) / "trained.txt").open("a") as file:
        file.write(f"{config.run}\n")
    result.write_text(outcome.message())
    said.write_text(outcome.message())
    return Exit.OK


if __name__ == "__main__":
    sys.exit(main())
