"""The hyperparameters that the trainer knows: name, default, and what a value must be.

Names are data and keep their snake_case; ``-`` equals ``_``. A name that starts with ``x-`` is passed on
unread, for trainers of one's own.
"""

import difflib
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

AUGMENTATIONS = (
    "HorizontalFlip",
    "VerticalFlip",
    "RandomRotate90",
    "D4",
    "Blur",
    "RandomBrightnessContrast",
    "MultiplicativeNoise",
    "Posterize",
)


class Hyperparameter(NamedTuple):
    """A hyperparameter's default, the kind of a value, and the check that a value must pass."""

    default: Any
    expects: str
    check: Callable[[Any], bool]
    number: type[int] | type[float] | None = None
    """int or float where the value is a number: what a canonical value is cast to."""


def _is_int(v: Any) -> bool:
    return not isinstance(v, bool) and (isinstance(v, int) or (isinstance(v, float) and v.is_integer()))


def is_number(v: Any) -> bool:
    """Whether a value is a number that a float can hold: no text, no boolean, finite."""
    return isinstance(v, int | float) and not isinstance(v, bool) and abs(v) <= sys.float_info.max


def is_null_word(text: str) -> bool:
    """Whether a text is some tool's way of writing null, such as Python's None."""
    return text.strip().lower() in ("", "none", "null", "~")


def _names(v: Any) -> bool:
    return isinstance(v, list | tuple) and all(isinstance(x, str) and x for x in v)


HYPERPARAMETERS: dict[str, Hyperparameter] = {
    "model_arch": Hyperparameter("Unet", "the name of an architecture", lambda v: isinstance(v, str) and bool(v)),
    "model_encoder": Hyperparameter("dpn107", "the name of an encoder", lambda v: isinstance(v, str) and bool(v)),
    "model_encoder_weights": Hyperparameter(
        None,
        "the name or URI of encoder weights, or null for none (write null, without quotes)",
        lambda v: v is None or (isinstance(v, str) and not is_null_word(v)),
    ),
    "augment": Hyperparameter(
        [],
        f"a list of augmentations out of {', '.join(AUGMENTATIONS)}",
        lambda v: _names(v) and set(v) <= set(AUGMENTATIONS) and len(set(v)) == len(v),
    ),
    "learning_rate": Hyperparameter(1e-3, "a number above 0", lambda v: is_number(v) and v > 0, float),
    "gamma": Hyperparameter(0.9, "a number in (0, 1]", lambda v: is_number(v) and 0 < v <= 1, float),
    "focal_loss_alpha": Hyperparameter(
        None, "null or a number in [0, 1]", lambda v: v is None or (is_number(v) and 0 <= v <= 1), float
    ),
    "focal_loss_gamma": Hyperparameter(2.0, "a number of at least 0", lambda v: is_number(v) and v >= 0, float),
    "batch_size": Hyperparameter(8, "an integer of at least 1", lambda v: _is_int(v) and v >= 1, int),
    "bands": Hyperparameter(
        None,
        "null (all bands) or a list of distinct band names",
        lambda v: v is None or (_names(v) and len(v) > 0 and len(set(v)) == len(v)),
    ),
}
"""Every hyperparameter of the trainer, in the order in which documents list them."""

EXTENSION_PREFIX = "x-"


def canonical_name(name: str) -> str:
    """Spell a hyperparameter's name with underscores, except for the ``x-`` of an extension."""
    if name.startswith(EXTENSION_PREFIX):
        return name
    return name.replace("-", "_")


def name_problem(name: str) -> str | None:
    """Say what is wrong with a hyperparameter's name, and which one is closest; None when it is known."""
    canonical = canonical_name(name)
    if canonical in HYPERPARAMETERS or canonical.startswith(EXTENSION_PREFIX):
        return None
    close = difflib.get_close_matches(canonical, HYPERPARAMETERS, n=1, cutoff=0.0)
    hint = f"; did you mean '{close[0]}'?" if close else ""
    return f"unknown hyperparameter '{name}'{hint} (prefix it with 'x-' to pass it on to your own trainer)"


def value_problem(name: str, value: Any) -> str | None:
    """Say what is wrong with a value of a known hyperparameter; None when it fits."""
    known = HYPERPARAMETERS.get(canonical_name(name))
    if known is None or known.check(value):
        return None
    return f"hyperparameter '{canonical_name(name)}' must be {known.expects}, not {value!r}"


def canonical_value(name: str, value: Any) -> Any:
    """Cast a checked value to its declared number type, so that 8 and 8.0 are one value."""
    known = HYPERPARAMETERS.get(canonical_name(name))
    if known is None or known.number is None or value is None:
        return list(value) if isinstance(value, tuple) else value
    return known.number(value)


def resolve(values: Mapping[str, Any]) -> dict[str, Any]:
    """Check given values and fill the rest with defaults.

    Raises:
        ValueError: a name is unknown or given twice (``-`` equals ``_``), or a value does not fit.
    """
    resolved = {name: h.default for name, h in HYPERPARAMETERS.items()}
    seen: set[str] = set()
    for name, value in values.items():
        problem = name_problem(name) or value_problem(name, value)
        if problem:
            raise ValueError(problem)
        canonical = canonical_name(name)
        if canonical in seen:
            raise ValueError(f"hyperparameter '{canonical}' is given twice")
        seen.add(canonical)
        resolved[canonical] = canonical_value(canonical, value)
    return resolved


def non_default(values: Mapping[str, Any]) -> dict[str, Any]:
    """The resolved values that differ from their defaults: what a digest covers."""
    return {
        name: value
        for name, value in resolve(values).items()
        if name not in HYPERPARAMETERS or value != HYPERPARAMETERS[name].default
    }
