"""Writes what runs leave together: run_infos.parquet of a CrossValidation; tune.parquet and best.yaml of a Tune.

Each run does so once its own result is there: what is derived comes after what it is derived from, and a run that was
killed in between does it when it is started again to repeat its result. Nobody has the last word by appointment, so
the tables are kept by everyone, without a lock:

    read the table; while results are there that it lacks: add them, write it, and look again

Of all writes of a table let W be the last, and assume a row that W lacks. The run of that row added it (or found it
added) after its result was there, so by a write before W, or by a read before W: in both cases its result was there
before W, and the look that follows W sees it (a listing or a read sees what was written before: S3, GCS, Azure and
folders promise it). Then the writer of W writes again, and W was not the last. The same holds one level up with
"the CrossValidation's table" for "result", since whoever writes that merges it into the Tune's afterwards.

A Tune's table is a folder of parts, each of the runs of PART trials, so that a run at the end of a search of 10,000
trials reads and writes no more than one at its beginning.
"""

import asyncio
import contextlib
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from pydantic import ValidationError

from crossfold_trainer import artifacts, tables
from crossfold_trainer.contract.config import RunConfig, run_folder
from crossfold_trainer.contract.result import RunResult
from crossfold_trainer.contract.scoring import score_direction
from crossfold_trainer.interrupt import Interrupt
from crossfold_trainer.store import Store, open_store
from crossfold_trainer.tables import Row, Rows

log = logging.getLogger(__name__)

RUN_INFOS = "run_infos.parquet"
TUNE = "tune.parquet"
BEST = "best.yaml"
BESTS = "bests"
"""Folder of every trial that was the best once, in their order."""
PART = 50
"""Trials of a part of tune.parquet."""
LIMIT_S = 60.0
"""How long a finished run may take for the tables."""
_PART_NAME = re.compile(rf"{TUNE}/\d{{5}}-([^/]*)\.parquet")
"""First trial, and the beginning of the Tune's uid."""
_RECORD_NAME = re.compile(rf"{BESTS}/\d{{6}}\.yaml")
AT_ONCE = 16
"""Requests in flight."""
POLL_S = 0.1


def leave(config: RunConfig, interrupt: Interrupt) -> None:
    """Bring the tables above a finished run up to date, as far as there are any and it can be done in time.

    Nothing of it fails the run: what cannot be written is a warning, and the next run that ends writes it too.

    Args:
        config: of the run.
        interrupt: deferred; SIGTERM shortens the time to what is left of the grace period.
    """
    base = _base(config)
    if base is None:
        return
    problems: list[str] = []

    def work() -> None:
        try:
            update(open_store(config.artifacts.model_copy(update={"uri": base}), "artifacts"), config)
        except Exception as error:  # noqa: BLE001 - no table is worth a run
            problems.append(f"{type(error).__name__}: {error}")

    thread = threading.Thread(target=work, name="tables", daemon=True)
    end = time.monotonic() + LIMIT_S
    thread.start()
    while thread.is_alive():
        left = min(end, interrupt.deadline or end) - time.monotonic()
        if left <= 0:
            problems.append("there was no time left")
            break
        thread.join(min(left, POLL_S))
    if problems:
        log.warning("warning: the tables in %s are not up to date: %s", base, " ".join(problems[0].split())[:600])


def _base(config: RunConfig) -> str | None:
    """The folder of the Tune, or of the CrossValidation where it is the root; None for a run without either."""
    above = config.artifact_path.split("/")[:-1]
    levels = [name for name in (config.tune, config.cross_validation) if name]
    if not (config.cross_validation and config.runs) or above[-len(levels) :] != levels:
        return None
    path = "/".join(above[:-1] if config.tune else above)
    return f"{config.artifacts.uri.rstrip('/')}/{path}"


def update(store: Store, config: RunConfig) -> None:
    """Bring the tables up to date.

    Args:
        store: the folder of the Tune, or of the CrossValidation where it is the root.
        config: of a run whose result is there.
    """
    folder = f"{config.cross_validation}/" if config.tune else ""
    _claim(store, folder, config)
    own = _settle(store, f"{folder}{RUN_INFOS}", config, lambda rows: _results(store, folder, config, rows))
    if config.tune and config.trial is not None:
        _Tune(store, config, config.trial).update(own)


def _settle(store: Store, path: str, config: RunConfig, look: Callable[[Rows], Rows]) -> Rows:
    """Add to a table what a look finds that it lacks, until there is no more; see above why that is enough."""
    rows = tables.unpack(store.read(path), config.root)
    while fresh := look(rows):
        rows |= fresh
        _replace(store, path, tables.pack(rows, config.root))
    return rows


def _claim(store: Store, folder: str, config: RunConfig) -> None:
    """Say in config.json whose result this is: an earlier object of the same name may have left it."""
    path = f"{folder}{run_folder(config.run, config.digest)}/{artifacts.CONFIG}"
    held = _config(store.read(path))
    if held is None or held.root != config.root:
        artifacts.write(store, artifacts.Item(path, (config.model_dump_json(indent=2) + "\n").encode()))


def _results(store: Store, folder: str, config: RunConfig, rows: Rows) -> Rows:
    """The rows of the CrossValidation's runs that have a result, but for those that are known."""
    known = {run_folder(row["name"], row["digest"]) for row in rows.values()}
    there = [path for path in store.folders(folder.rstrip("/")) if path.rsplit("/", 1)[-1] not in known]
    results = dict(zip(there, _read(store, [f"{path}/{artifacts.RESULT}" for path in there]), strict=True))
    ended = [path for path in there if results[path] is not None]
    configs = _read(store, [f"{path}/{artifacts.CONFIG}" for path in ended])
    found: Rows = {}
    for path, content in zip(ended, configs, strict=True):
        run, result = _config(content), _result(results[path])
        if run is not None and result is not None and tables.belongs(config, run, result):
            found[run.run] = tables.row_of(run, result)
    return found


class _Tune:
    """The tables of a Tune, as far as one trial has to do with them."""

    def __init__(self, store: Store, config: RunConfig, trial: int) -> None:
        self._store = store
        self._config = config
        self._first = trial - trial % PART
        self._stem = config.cross_validation.removesuffix(str(trial))
        self._direction = score_direction(config.objective)
        self._seen: set[bytes] = set()
        """Tables whose rows were taken in: most are the same when they are looked at again."""

    def update(self, own: Rows) -> None:
        """Bring them up to date. Own rows are those of the trial."""
        path = f"{TUNE}/{self._first:05d}-{self._config.root[:8]}.parquet"
        self._drop_others()
        rows = _settle(self._store, path, self._config, lambda rows: self._look(rows, own))
        best = tables.best_of(rows.values(), self._config.runs, self._direction)
        if best is not None:
            self._crown(best)

    def _drop_others(self) -> None:
        """Delete the parts that an earlier Tune of the same name left."""
        for entry in self._store.list(TUNE):
            part = _PART_NAME.fullmatch(entry.path)
            if part is not None and part[1] != self._config.root[:8]:
                self._store.delete(entry.path)

    def _look(self, rows: Rows, own: Rows) -> Rows:
        """The rows of this part's trials that are not known. The tables of those that are complete never change."""
        settled = tables.whole(rows.values(), self._config.runs)
        numbers = [n for n in range(self._first, self._first + PART) if n not in settled]
        found = _read(self._store, [f"{self._stem}{n}/{RUN_INFOS}" for n in numbers])
        there: dict[str, Row] = dict(own)
        for content in {content for content in found if content is not None} - self._seen:
            there |= tables.unpack(content, self._config.root)
            self._seen.add(content)
        return {name: row for name, row in there.items() if name not in rows}

    def _crown(self, best: tables.Best) -> None:
        """Write best.yaml: the newest of the records, of which each is better than the one before.

        Of two who want to write the next record one succeeds, and the other looks at what there is now.
        """
        direction = self._direction
        number, held, content = self._newest()
        while held is None or best.rank(direction) < held.rank(direction):
            self._store.create(f"{BESTS}/{number + 1:06d}.yaml", tables.record(best, self._config))
            number, held, content = self._newest()
        while self._store.read(BEST) != content:
            _replace(self._store, BEST, content)
            _, _, content = self._newest()

    def _newest(self) -> tuple[int, tables.Record | None, bytes]:
        """The last number that is taken, and the newest record of this Tune."""
        listed = (entry.path for entry in self._store.list(BESTS))
        paths = sorted((path for path in listed if _RECORD_NAME.fullmatch(path)), reverse=True)
        last = int(Path(paths[0]).stem) if paths else 0
        for path in paths:
            content = self._store.read(path) or b""
            held = tables.read_record(content)
            if held is not None and held.uid == self._config.root:
                return last, held, content
        return last, None, b""


def _replace(store: Store, path: str, content: bytes) -> None:
    """Write an object that others may list meanwhile: in a folder, nothing but the whole of it is ever to be seen.

    (The client writes to `path#1` there first, which a reader of all of a table's parts would take for one.)
    """
    if store.folder is None:
        artifacts.write(store, artifacts.Item(path, content))
        return
    target = store.folder / path
    hidden = target.with_name(f".{target.name}.{os.getpid()}")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        hidden.write_bytes(content)
        hidden.replace(target)
    finally:
        hidden.unlink(missing_ok=True)


def _read(store: Store, paths: Sequence[str]) -> "list[bytes | None]":
    """Objects, several at a time; None for those that are not there."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(path: str) -> bytes | None:
        async with gate:
            found = await store.fetch(path)
            return None if found is None else bytes(found.content)

    async def every(wanted: Iterable[str]) -> "list[bytes | None]":
        return list(await asyncio.gather(*map(one, wanted)))

    return asyncio.run(every(paths)) if paths else []


def _config(content: bytes | None) -> RunConfig | None:
    with contextlib.suppress(ValidationError):
        return None if content is None else RunConfig.model_validate_json(content)
    return None


def _result(content: bytes | None) -> RunResult | None:
    with contextlib.suppress(ValidationError):
        return None if content is None else RunResult.model_validate_json(content)
    return None
