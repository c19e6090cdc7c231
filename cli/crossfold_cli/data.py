"""`crossfold data check`: the trainer's check of a data set, shown on a terminal or as JSON."""

import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from crossfold_cli.asjson import as_json
from crossfold_cli.errors import UsageError
from crossfold_trainer.contract.data import BandRange, DataSpec, NonFinite, ScaleSpec

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from crossfold_trainer.check import Checked
    from crossfold_trainer.summary import Folds, Summary

FORMATS = ("text", "json")
_REGIONS = 20
"""So many regions are shown; JSON has all."""
_WIDTH = 120
"""Columns of tables where there is no terminal."""
_OURS = "crossfold"
_NUMBER = r"([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)"
_BAND_SCALE = re.compile(rf"(.+)={_NUMBER},{_NUMBER}")


@dataclass(frozen=True)
class Options:
    """What to check, and how."""

    bands: tuple[str, ...] | None = None
    folds: int = 5
    seed: int = 42
    pixels: bool = True
    output: str = "text"


def spec_of(
    uri: str,
    *,
    endpoint: str,
    region: str,
    anonymous: bool,
    scale: tuple[float, float] | None,
    band_scales: Sequence[str],
    non_finite: str,
) -> DataSpec:
    """The data set as a manifest's ``spec.data`` would name it.

    Args:
        uri: where it is.
        endpoint: URL of the S3 server.
        region: that requests are signed for.
        anonymous: read without credentials.
        scale: the values of x that become 0 and 1; None: x is in [0, 1].
        band_scales: the same for single bands, as NAME=MIN,MAX.
        non_finite: Error or Ignore.

    Raises:
        UsageError: a value is not accepted.
    """
    own = [_band_scale(text) for text in band_scales]
    low, high = scale or (0.0, 1.0)
    for name, least, greatest in [("--scale", low, high), *((f"--band-scale {b.name}", b.min, b.max) for b in own)]:
        if not least < greatest:
            raise UsageError(f"{name} from {least:g} to {greatest:g}: the first value must be below the second")
    if non_finite not in list(NonFinite):
        raise UsageError(f"--non-finite {non_finite} is not known: use {' or '.join(NonFinite)}")
    if endpoint and not endpoint.startswith(("http://", "https://")):
        raise UsageError(f"--endpoint {endpoint} must begin with http:// or https://")
    try:
        return DataSpec(
            uri=uri,
            endpoint=endpoint,
            region=region,
            anonymous=anonymous,
            scale=ScaleSpec(min=low, max=high, bands=own) if scale or own else None,
            non_finite=NonFinite(non_finite),
        )
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()]
        raise UsageError(f"{uri} cannot be checked", problems) from error


def _band_scale(text: str) -> BandRange:
    found = _BAND_SCALE.fullmatch(text)
    if found is None:
        raise UsageError(f"--band-scale {text}: write it as NAME=MIN,MAX, such as nir=0,10000")
    name, low, high = found.groups()
    return BandRange(name=name, min=float(low), max=float(high))


def check(spec: DataSpec, options: Options) -> bool:
    """Check a data set and print what came of it; whether a run may train on it.

    Raises:
        UsageError: it cannot be checked.
    """
    if options.output not in FORMATS:
        raise UsageError(f"-o {options.output} is not known: use {' or '.join(FORMATS)}")
    with _installed():
        from crossfold_trainer.check import check_dataset  # noqa: PLC0415 - the extra may be missing
        from crossfold_trainer.errors import ConfigError, StoreError  # noqa: PLC0415
    try:
        with _progress(spec.uri) as progress:
            checked = check_dataset(
                spec,
                options.bands,
                folds=options.folds,
                seed=options.seed,
                pixels=options.pixels,
                progress=progress,
            )
    except (ConfigError, StoreError) as error:
        raise UsageError(f"{spec.uri} cannot be checked", [str(error)]) from error
    if options.output == "json":
        print(json.dumps({"uri": spec.uri, "good": checked.good, **as_json(checked)}, indent=2, ensure_ascii=False))
    else:
        _show(spec.uri, checked, options)
    return checked.good


@contextmanager
def _installed() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").startswith(_OURS):
            raise
        raise UsageError(
            f"reading a data set needs {error.name}, which is not installed", hint="pip install 'crossfold[cli,data]'"
        ) from error


@contextmanager
def _progress(uri: str) -> Iterator[Callable[[int, int], None] | None]:
    """A bar on stderr, where that is a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console  # noqa: PLC0415 - only where there is a terminal
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(f"listing {uri}", total=None)

        def advance(done: int, total: int) -> None:
            bar.update(task, description="reading patches", completed=done, total=total)

        yield advance


def _show(uri: str, checked: "Checked", options: Options) -> None:
    from rich.console import Console  # noqa: PLC0415 - only for text

    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else _WIDTH, highlight=False, markup=False)
    if checked.summary is not None:
        _show_summary(console, checked.summary, options)
    for finding in checked.findings:
        style = "bold red" if finding.severity == "error" else "yellow"
        console.print(f"{finding.severity.value}: ", style=style, end="")
        named = "" if finding.field == "data.uri" else f" ({finding.field})"
        console.print(f"{finding.where}{named}: {finding.text}", soft_wrap=True)
        if finding.remedy:
            console.print(f"  {finding.remedy}", style="dim", soft_wrap=True)
    console.print(_verdict(uri, checked, options), style="bold green" if checked.good else "bold red", soft_wrap=True)


def _verdict(uri: str, checked: "Checked", options: Options) -> str:
    n = sum(finding.severity == "error" for finding in checked.findings)
    counts = [_count(n, "error"), _count(len(checked.findings) - n, "warning")]
    read = f"pixels of {checked.pixels_read} patches read" if options.pixels else "pixels not read"
    if options.pixels and not checked.pixels_read:
        read = "no pixel read: correct the above and check again"
    return f"{uri}: {'right' if checked.good else 'wrong'}, {' and '.join(counts)}; {read}"


def _count(n: int, what: str) -> str:
    return f"{n or 'no'} {what}{'' if n == 1 else 's'}"


def _show_summary(console: "Console", summary: "Summary", options: Options) -> None:
    order = f"rows ordered by {summary.ordered_by}" if summary.ordered_by else "row i describes patch i"
    console.print(
        f"{summary.patches} patches of {summary.height} x {summary.width} pixels, {summary.positive} of them with"
        f" positive pixels; {summary.bytes / 1e6:.1f} MB stored; {order}",
        soft_wrap=True,
    )
    console.print(f"data digest {summary.digest}", style="dim", soft_wrap=True)
    console.print(_bands(summary))
    if summary.classes:
        console.print(_classes(summary))
    if summary.regions:
        console.print(_regions(summary))
    console.print(_folds(summary.folds, options))
    for cut in summary.folds:
        for text in (cut.refused, *cut.warnings):
            if text:
                console.print(f"{cut.method.value}: {text}", soft_wrap=True)


def _table(*columns: str, title: str = "") -> "Table":
    from rich.box import SIMPLE_HEAD  # noqa: PLC0415 - as above
    from rich.table import Table  # noqa: PLC0415

    table = Table(box=SIMPLE_HEAD, title=title or None, title_justify="left", padding=(0, 1), pad_edge=False)
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i == 0 else "right", overflow="fold")
    return table


def _add(table: "Table", *cells: Any) -> None:
    from rich.text import Text  # noqa: PLC0415 - as above

    table.add_row(*(Text(str(cell)) for cell in cells))


def _bands(summary: "Summary") -> "Table":
    table = _table("band", "least", "greatest", "NaN or infinite", "out of range")
    for band in summary.bands:
        ends = [f"{end:g}" if end is not None else "-" for end in (band.least, band.greatest)]
        _add(table, band.name, *ends, _share(band.non_finite, band.pixels), _share(band.outside, band.pixels))
    return table


def _share(n: int, of: int) -> str:
    return "-" if not of else f"{n} ({n / of:.2%})" if n else "0"


def _classes(summary: "Summary") -> "Table":
    table = _table("class", "label", "pixels", "share")
    total = sum(one.pixels for one in summary.classes)
    for one in summary.classes:
        _add(table, one.name, one.label, one.pixels, f"{one.pixels / max(1, total):.2%}")
    return table


def _regions(summary: "Summary") -> "Table":
    table = _table("region", "patches", "positive")
    for region in summary.regions[:_REGIONS]:
        _add(table, region.name or "(none)", region.patches, region.positive)
    rest = summary.regions[_REGIONS:]
    if rest:
        counts = sum(region.patches for region in rest), sum(region.positive for region in rest)
        _add(table, f"and {len(rest)} more", *counts)
    return table


def _folds(folds: "Sequence[Folds]", options: Options) -> "Table":
    title = f"{options.folds} folds, seed {options.seed}"
    table = _table("foldMethod", "fold", "train", "positive", "validation", "positive", title=title)
    for cut in folds:
        for i, fold in enumerate(cut.folds):
            sizes = fold.train.patches, fold.train.positive, fold.val.patches, fold.val.positive
            _add(table, "" if i else cut.method.value, i, *sizes)
        if cut.refused:
            _add(table, cut.method.value, "cannot")
    return table
