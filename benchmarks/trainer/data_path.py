"""Patches per second from an S3 server to batches, beside the limit of requests and decoding alone.

The limit is measured in the same run, in turns with what is compared: the machine's other work hits both alike.
"""

import asyncio
import contextlib
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import obstore
import pyarrow as pa
import torch
import zarr
from numcodecs import blosc
from obstore.store import S3Store
from pyarrow import parquet
from zarr.codecs import BloscCodec

from benchmarks.trainer.darts_calls import darts_calls, s3fs_folder
from benchmarks.trainer.latency import late
from crossfold_trainer.contract.config import CACHE_VARIABLE
from crossfold_trainer.contract.data import ArtifactsSpec, DataSpec
from crossfold_trainer.contract.trainer import InMemory
from crossfold_trainer.data import open_dataset
from crossfold_trainer.dataset.rewrite import rewrite
from crossfold_trainer.loader import Loader, ordered_batches
from crossfold_trainer.reader import REQUESTS, threads
from crossfold_trainer.values import ValueCheck
from tests.s3server import s3_server

BANDS, SIDE, BATCH = 6, 256, 16
BUCKET, KEY, SECRET = "benchmark", "KEY", "secret"
DARTS_PATCHES = 24
"""Read by darts' calls, which take a second for some patches."""
LAYOUTS = {"darts_layout": (np.dtype("<f4"), BANDS), "own_layout": (np.dtype("<u2"), 1)}
"""Stored type of x, and its chunks in a patch."""

Rate = Callable[[], float]


def measure(patches: int, rounds: int, say: Callable[[str], None], budget_s: float = 240.0) -> dict[str, Any]:
    """All variants on both layouts, with 0 and 30 ms of added latency.

    On a machine that is too slow for it there are fewer rounds of each, so that half of `budget_s` does for them.
    """
    end = time.monotonic() + budget_s
    with tempfile.TemporaryDirectory(prefix="crossfold-bench-") as name:
        folder = Path(name)
        say(f"writing {patches} patches of {SIDE} x {SIDE} x {BANDS}")
        write(folder / BUCKET / "darts_layout", patches)
        rewrite(
            DataSpec(uri=str(folder / BUCKET / "darts_layout")), ArtifactsSpec(uri=str(folder / BUCKET / "own_layout"))
        )
        with s3_server(folder, KEY, SECRET, "us-east-1") as endpoint:
            return _all(endpoint, folder, patches, rounds, say, end=end)


def _all(
    endpoint: str, folder: Path, patches: int, rounds: int, say: Callable[[str], None], *, end: float
) -> dict[str, Any]:
    result: dict[str, Any] = {}
    share = max(0.0, end - time.monotonic()) / 2 / (2 * len(LAYOUTS))
    for layout in LAYOUTS:
        result[layout] = {}
        for ms in (0, 30):
            with late(endpoint, ms) as there:
                raw, ours = _in_turns(rounds, share, partial(_raw, there, layout, patches), _ours(there, layout))
            found = _compared(raw, ours, patches)
            result[layout][f"{ms}ms"] = found
            rates = f"{found['patches_per_s']:.0f} patches/s, raw {found['raw_patches_per_s']:.0f}"
            say(f"{layout} {ms} ms: {rates}, ratio {found['ratio_to_raw']:.2f}")
        share = check_share(_spec(endpoint, layout), rounds)
        result[layout]["value_check_share"] = round(share, 4)
        say(f"{layout}: looking at the values takes {share:.2%} of the first epoch's CPU time")
    with late(endpoint, 30) as there:
        cold, warm = _cached(there, folder / "cache", rounds, end)
    result["warm_vs_cold"] = round(warm / cold, 2)
    say(f"cache: {cold:.0f} patches/s cold, {warm:.0f} warm, {warm / cold:.1f} times")
    local = darts_calls(str(folder / BUCKET / "darts_layout"), min(patches, 4 * DARTS_PATCHES), {})
    result["warm_vs_darts_calls_local"] = round(warm / local, 2)
    say(f"darts' calls on a local copy: {local:.0f} patches/s; the warm cache is {warm / local:.1f} times that")
    result["vs_darts_calls_30ms"], result["own_layout_vs_darts_calls_30ms"] = None, None
    if s3fs_folder() is None:
        say("darts' calls over S3 are not measured: s3fs cannot be installed")
        return result
    with late(endpoint, 30) as there:
        options = {"key": KEY, "secret": SECRET, "endpoint_url": there}
        slow = darts_calls(f"{BUCKET}/darts_layout", DARTS_PATCHES, options)
    result["darts_calls_30ms_patches_per_s"] = round(slow, 2)
    result["vs_darts_calls_30ms"] = round(result["darts_layout"]["30ms"]["patches_per_s"] / slow, 1)
    result["own_layout_vs_darts_calls_30ms"] = round(result["own_layout"]["30ms"]["patches_per_s"] / slow, 1)
    say(f"darts' calls, 2 workers, 30 ms: {slow:.1f} patches/s; ours is {result['vs_darts_calls_30ms']} times that")
    return result


def _compared(raw: "list[_Turn]", ours: "list[_Turn]", patches: int) -> dict[str, float]:
    """Medians of rates, of the ratios of neighbours, and of CPU time, which the machine's other work changes least."""
    return {
        "rounds": len(ours),
        "raw_patches_per_s": round(statistics.median(turn.rate for turn in raw), 1),
        "patches_per_s": round(statistics.median(turn.rate for turn in ours), 1),
        "ratio_to_raw": round(statistics.median(b.rate / a.rate for a, b in zip(raw, ours, strict=True)), 3),
        "raw_cpu_ms_per_patch": round(1000 * statistics.median(turn.cpu_s for turn in raw) / patches, 2),
        "cpu_ms_per_patch": round(1000 * statistics.median(turn.cpu_s for turn in ours) / patches, 2),
    }


class _Turn(NamedTuple):
    """One measurement."""

    rate: float
    """Patches per second."""
    cpu_s: float
    """Of this process."""


def _in_turns(rounds: int, budget_s: float, *rates: Rate) -> list[list[_Turn]]:
    """Each rate so many times, one after the other, and once at least; a first round warms up."""
    end = time.monotonic() + budget_s
    for rate in rates:
        rate()
    found: list[list[_Turn]] = [[] for _ in rates]
    for i in range(rounds):
        if i and time.monotonic() > end:
            break
        for rate, values in zip(rates, found, strict=True):
            began = time.process_time()
            values.append(_Turn(rate(), time.process_time() - began))
    return found


def _spec(endpoint: str, layout: str, **more: Any) -> DataSpec:
    return DataSpec.model_validate({"uri": f"s3://{BUCKET}/{layout}", "endpoint": endpoint, **more})


def _ours(endpoint: str, layout: str, **more: Any) -> Rate:
    """Opens the data set; each call reads all of it."""
    data = open_dataset(_spec(endpoint, layout, **more), None)
    rows = np.arange(len(data))
    loader = Loader(data, rows, torch.device("cpu"), in_memory=InMemory.NEVER)
    # Up to what travels to a device: making float32 of stored numbers is the device's work, and a GPU's is not here.
    loader._scale = lambda stored: stored  # type: ignore[method-assign, assignment]  # noqa: SLF001

    def rate() -> float:
        began = time.perf_counter()
        got = sum(len(x) for x, _ in loader.batches(ordered_batches(rows, BATCH)))
        return got / (time.perf_counter() - began)

    return rate


def check_share(spec: DataSpec, rounds: int) -> float:
    """The share of the CPU time of a first epoch that goes into looking at the values; median."""
    shares = []
    for _ in range(rounds):
        data = open_dataset(spec, None)  # which has looked at nothing yet
        loader = Loader(data, np.arange(len(data)), torch.device("cpu"), in_memory=InMemory.NEVER)
        loader._scale = lambda stored: stored  # type: ignore[method-assign, assignment]  # noqa: SLF001
        with _timed(ValueCheck) as spent:
            began = time.process_time()
            for _ in loader.batches(ordered_batches(np.arange(len(data)), BATCH)):
                pass
            shares.append(sum(spent) / (time.process_time() - began))
    return statistics.median(shares)


@contextlib.contextmanager
def _timed(kind: type[ValueCheck]) -> Iterator[list[float]]:
    """CPU seconds of each call of a check, in whichever thread."""
    spent: list[float] = []
    call = kind.__call__

    def timed(check: ValueCheck, row: int, x: Any, y: Any) -> None:
        began = time.thread_time()
        call(check, row, x, y)
        spent.append(time.thread_time() - began)

    kind.__call__ = timed  # type: ignore[method-assign]
    try:
        yield spent
    finally:
        kind.__call__ = call  # type: ignore[method-assign]


def _cached(endpoint: str, folder: Path, rounds: int, end: float) -> tuple[float, float]:
    """Patches per second into an empty cache and out of a full one, medians."""
    cold, warm = [], []
    for i in range(rounds):
        os.environ[CACHE_VARIABLE] = str(folder / str(i))
        rate = _ours(endpoint, "darts_layout", cache={})
        cold.append(rate())
        warm.append(rate())
        if time.monotonic() > end:
            break
    del os.environ[CACHE_VARIABLE]
    return statistics.median(cold), statistics.median(warm)


def _raw(endpoint: str, layout: str, patches: int) -> float:
    """GET and decode, nothing else: no batches, no checks, no order."""
    dtype, chunks = LAYOUTS[layout]
    store = S3Store(
        BUCKET, prefix=layout, endpoint=endpoint, region="us-east-1", access_key_id=KEY, secret_access_key=SECRET,
        client_options={"allow_http": True}, virtual_hosted_style_request=False,
    )  # fmt: skip
    buffers = [np.empty((BANDS // chunks, SIDE, SIDE), dtype) for _ in range(threads())]
    labels = np.empty((SIDE, SIDE), np.uint8)
    requests = asyncio.Semaphore(REQUESTS)

    def decode(contents: list[Any], thread: int) -> None:
        blosc.decompress(contents[0], labels)
        for content in contents[1:]:
            blosc.decompress(content, buffers[thread])

    async def get(key: str) -> Any:
        async with requests:
            return await (await obstore.get_async(store, key)).bytes_async()

    async def one(pool: ThreadPoolExecutor, i: int) -> None:
        keys = [f"data.zarr/y/c/{i}/0/0", *(f"data.zarr/x/c/{i}/{j}/0/0" for j in range(chunks))]
        contents = await asyncio.gather(*map(get, keys))
        await asyncio.get_running_loop().run_in_executor(pool, decode, contents, i % len(buffers))

    async def everything() -> None:
        with ThreadPoolExecutor(threads()) as pool:
            await asyncio.gather(*(one(pool, i) for i in range(patches)))

    began = time.perf_counter()
    asyncio.run(everything())
    return patches / (time.perf_counter() - began)


def write(folder: Path, patches: int, *, bands: int = BANDS, side: int = SIDE) -> None:
    """Something like imagery: smooth, with noise in the last digits; it compresses to about half."""
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text(f"[darts]\nbands = {[f'b{i}' for i in range(bands)]}\npatch_size = {side}\n")
    group = zarr.open_group(folder / "data.zarr", mode="w")
    codec = BloscCodec(cname="lz4", clevel=5, shuffle="shuffle")
    x = group.create_array(
        "x", shape=(patches, bands, side, side), dtype="f4", chunks=(1, 1, side, side), compressors=codec
    )
    y = group.create_array("y", shape=(patches, side, side), dtype="u1", chunks=(1, side, side), compressors=codec)

    def one(i: int) -> bool:
        """Write a patch; whether it is empty."""
        rng = np.random.default_rng(i)
        coarse = rng.random((bands, side // 16, side // 16), np.float32)
        smooth = coarse.repeat(16, 1).repeat(16, 2)
        x[i] = np.round((0.7 * smooth + 0.02 * rng.random(smooth.shape, np.float32)) * 10000) / 10000
        labels = smooth[0] > 0.6
        y[i] = labels.astype(np.uint8)
        return not labels.any()

    with ThreadPoolExecutor(threads()) as pool:
        empty = list(pool.map(one, range(patches)))
    regions = [f"r{i % 12}" for i in range(patches)]
    parquet.write_table(pa.table({"empty": empty, "region": regions}), folder / "metadata.parquet")
