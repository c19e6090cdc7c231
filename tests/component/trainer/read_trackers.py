"""Reads back what trackers hold of a run, in a process of its own; prints it as JSON.

python read_trackers.py wandb FILE | aim URI HASH | mlflow URI EXPERIMENT
"""

import json
import struct
import sys
from pathlib import Path
from typing import Any

BLOCK = 32768


def records(data: bytes) -> list[bytes]:
    """The records of a .wandb file: LevelDB's log format after a header of seven bytes."""
    assert data[:4] == b":W&B"
    found, parts, at = [], b"", 7
    while at < len(data):
        if (left := BLOCK - at % BLOCK) < 7:
            at += left
            continue
        _, size, kind = struct.unpack_from("<IHB", data, at)
        piece = data[at + 7 : at + 7 + size]
        at += 7 + size
        # 1 whole, 2 first, 3 middle, 4 last
        parts = piece if kind in (1, 2) else parts + piece
        if kind in (1, 4):
            found.append(parts)
    return found


def wandb(file: str) -> Any:
    from wandb.proto import wandb_internal_pb2

    out: dict[str, Any] = {"history": [], "summary": {}}
    for raw in records(Path(file).read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(raw)

        def values(items: Any) -> dict[str, Any]:
            return {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in items}

        match record.WhichOneof("record_type"):
            case "run":
                run = record.run
                out["run"] = {
                    "id": run.run_id,
                    "name": run.display_name,
                    "group": run.run_group,
                    "job_type": run.job_type,
                    "project": run.project,
                    "config": values(run.config.update),
                }
            case "history":
                out["history"].append(values(record.history.item))
            case "summary":
                out["summary"] |= values(record.summary.update)
            case "exit":
                out["exit"] = record.exit.exit_code
            case _:
                pass
    return out


def aim(uri: str, run_hash: str) -> Any:
    from aim import Run

    quiet = {"system_tracking_interval": None, "log_system_params": False, "capture_terminal_logs": False}
    run: Any = Run(run_hash=run_hash, repo=uri, force_resume=True, **quiet)
    metrics = {
        f"{m.context.to_dict().get('subset')}/{m.name}": sorted(m.values.sparse_list()[1]) for m in run.metrics()
    }
    return {
        "name": run.name,
        "experiment": run.experiment,
        "hparams": run["hparams"],
        "crossfold": run["crossfold"],
        "result": run.get("result"),
        "metrics": metrics,
    }


def mlflow(uri: str, experiment: str) -> Any:
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    found = client.get_experiment_by_name(experiment)
    return [
        {
            "name": run.info.run_name,
            "status": run.info.status,
            "params": run.data.params,
            "tags": run.data.tags,
            "metrics": {
                name: [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, name)]
                for name in run.data.metrics
            },
            "files": [file.path for file in client.list_artifacts(run.info.run_id)],
        }
        for run in client.search_runs([found.experiment_id])
    ]


if __name__ == "__main__":
    answers = sys.stdout
    sys.stdout = sys.stderr
    answers.write(json.dumps({"wandb": wandb, "aim": aim, "mlflow": mlflow}[sys.argv[1]](*sys.argv[2:])))
