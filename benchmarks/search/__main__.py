"""Measure racing and the sampler: ``make bench-search``. Writes search.json, pictures and the tables of docs/racing.md.

Racing: whole searches replayed on full score matrices of real tasks and on simulated ones, with the operator's rule and
with others, see ``tasks``, ``simulate``, ``rules``, ``replay`` and ``races``. How long the sampler takes, and how
well it chooses: see ``sampler``. With ``--only`` one part is measured again, and the others' last results stay.
"""

import argparse
import json
import os
import platform
import time
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.search import picture, races, sampler
from benchmarks.search.tables import renewed, table

PARTS = ("racing", "times", "sampler")
RESULTS = Path(__file__).parent.parent / "results"
PAGE = Path(__file__).parents[2] / "docs" / "racing.md"


def main() -> None:
    """Run the parts, print a table, write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=PARTS, help="measure this part; the results of the others are kept")
    parser.add_argument("--replays", type=int, default=120, help="replays of a task and design (rivals: an eighth)")
    parser.add_argument("--studies", type=int, default=1000, help="simulated searches of a kind and design")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()

    path = options.results / "search.json"
    report: dict[str, Any] = json.loads(path.read_text()) if options.only and path.exists() else {}
    conditions: dict[str, Any] = report.pop("conditions", {})
    for part in [options.only] if options.only else PARTS:
        start, load = time.monotonic(), os.getloadavg()[0]
        with ProcessPoolExecutor(options.workers) as pool:
            if part == "racing":
                report |= races.measure(pool, options.workers, options.replays, options.studies)
            elif part == "times":
                report |= sampler.times()
            else:
                report["against_optuna"] = sampler.compared(pool)
        conditions[part] = {**_conditions(load), "seconds": round(time.monotonic() - start)}
    report["conditions"] = conditions

    options.results.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n")
    if "designs" in report:
        (options.results / "search.svg").write_text(picture.results(report))
        (options.results / "racing.svg").write_text(picture.explained())
        if options.results == RESULTS:
            PAGE.write_text(renewed(PAGE.read_text(), report))
        print(table(report))


def _conditions(load: float) -> dict[str, Any]:
    """On what a part was measured."""
    libraries = {name: version(name) for name in ("numpy", "scipy", "scikit-learn", "optuna")}
    return {
        "cores": os.cpu_count(),
        "cpu": _cpu(),
        "load_at_start": round(load, 1),
        "versions": {"python": platform.python_version(), **libraries},
    }


def _cpu() -> str:
    """The processor's model."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    main()
