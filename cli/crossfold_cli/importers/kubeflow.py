"""What the two kinds of Kubeflow have in common: an object whose spec lists parameters and counts trials."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from crossfold_cli.importers.located import Located
from crossfold_cli.importers.shape import Entry, Reading, Search, object_name, required


@dataclass(frozen=True)
class Form:
    """How one kind says things.

    Attributes:
        kind: the kind, with its article.
        check_version: refuses an apiVersion.
        entry: reads one of spec.parameters.
        counts: fields of spec that are whole numbers: which field of a Search each one is, and its least value.
        parts: other fields of spec that count, each with the field of a Search that it is most of, and with what reads
            it into fields of a Search.
        left: why other fields are left behind.
        defaults: fields of a Search where spec does not say.
    """

    kind: str
    check_version: Callable[[Located], None]
    entry: Callable[[Located, Reading], Entry]
    counts: Mapping[str, tuple[str, int]]
    parts: Mapping[str, tuple[str, Callable[[Located, Reading], Mapping[str, Any]]]]
    left: Mapping[str, str]
    defaults: Mapping[str, Any]


def read(document: Located, reading: Reading, form: Form) -> Search:
    """Read an object."""
    top = document.mapping("the file")
    name = object_name(top, reading)
    spec: Mapping[str, Located] = {}
    with reading.part():
        form.check_version(required(document, top, "apiVersion", form.kind))
    with reading.part():
        spec = required(document, top, "spec", form.kind).mapping("spec")
    entries: list[Entry] = []
    found = dict(form.defaults)
    for key, item in spec.items():
        with reading.part():
            if key == "parameters":
                for parameter in item.items(key):
                    with reading.part():
                        entries.append(form.entry(parameter, reading))
            elif key in form.counts:
                field, least = form.counts[key]
                with reading.part(field):
                    found[field] = item.count(key, least=least)
            elif key in form.parts:
                field, read_part = form.parts[key]
                with reading.part(field):
                    found |= read_part(item, reading)
            else:
                reading.left(item, f"'{key}'", form.left.get(key, "it has no counterpart"))
    if spec and not entries and not reading.errors:
        raise document.error(f"{form.kind} needs parameters")
    return Search(entries=tuple(entries), name=name, **found)
