"""`crossfold import`: another tool's search in, a Tune out."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from crossfold_cli.errors import UsageError
from crossfold_cli.importers import darts, katib, optimizationjob, wandb
from crossfold_cli.importers.located import Located, from_toml, from_yaml
from crossfold_cli.importers.placeholders import PLACEHOLDER
from crossfold_cli.importers.render import manifest
from crossfold_cli.importers.shape import Reading, Search
from crossfold_cli.importers.tune import Imported, Options, Refused, tune_of


@dataclass(frozen=True)
class Format:
    """A format that can be imported."""

    title: str
    recognised: Callable[[Located], bool]
    read: Callable[[Located, Reading], Search]


def _format(module: ModuleType) -> Format:
    return Format(module.TITLE, module.recognised, module.read)


FORMATS: Mapping[str, Format] = {
    "darts": _format(darts),
    "wandb": _format(wandb),
    "katib": _format(katib),
    "optimizationjob": _format(optimizationjob),
}


def convert(file: str, source: str | None, options: Options) -> tuple[str, list[str]]:
    """The Tune that a file means.

    Args:
        file: path of the file; ``-`` is standard input.
        source: which of FORMATS it is; None: what it looks like.
        options: what a person adds.

    Returns:
        The manifest, and notes on how the file was read.

    Raises:
        UsageError: the file cannot be read, or means no Tune.
    """
    if source is not None and source not in FORMATS:
        raise UsageError(f"--from {source} is not known: use {', '.join(FORMATS)}")
    documents = _documents(file)
    name, document = _chosen(file, source, documents)
    reading = Reading(options.dropped, options.replaced)
    try:
        imported = _imported(FORMATS[name], document, reading, options, Path(file).stem)
    except Refused as refused:
        raise UsageError(f"{file} cannot be imported as a {FORMATS[name].title}", refused.lines) from refused
    origin = "standard input" if file == "-" else Path(file).name
    head = [f"From {origin}, a {FORMATS[name].title}, by crossfold import."]
    notes = [*reading.notes, *imported.notes]
    notes += [f"{path}: {text}" for path, text in imported.comments.items() if text.startswith(PLACEHOLDER)]
    return manifest(imported.tune, imported.comments, head), notes


def _imported(form: Format, document: Located, reading: Reading, options: Options, stem: str) -> Imported:
    with reading.part():
        return tune_of(form.read(document, reading), options, stem, reading.errors)
    raise Refused(reading.errors)


def _documents(file: str) -> list[Located]:
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise UsageError(f"{file} cannot be read: {why}") from error
    toml = Path(file).suffix.lower() == ".toml"
    try:
        return [from_toml(text)] if toml else from_yaml(text)
    except ValueError as error:
        raise UsageError(f"{file} is no {'TOML' if toml else 'YAML'}", [str(error)]) from error


def _chosen(file: str, source: str | None, documents: list[Located]) -> tuple[str, Located]:
    """The format and the document, where there is one of each."""
    formats = FORMATS if source is None else {source: FORMATS[source]}
    found = [(name, document) for document in documents for name, form in formats.items() if form.recognised(document)]
    if len(found) == 1:
        return found[0]
    if len(found) > 1:
        where = ", ".join(f"line {document.line}: {FORMATS[name].title}" for name, document in found)
        raise UsageError(f"{file} holds several searches ({where}): split it, and import one at a time")
    if source is not None and len(documents) == 1:
        return source, documents[0]
    if source is not None:
        raise UsageError(f"{file} holds no {FORMATS[source].title} in its {len(documents)} documents")
    known = ", ".join(f"{name} ({form.title})" for name, form in FORMATS.items())
    raise UsageError(f"{file} looks like none of the known formats: say which it is by --from, one of {known}")
