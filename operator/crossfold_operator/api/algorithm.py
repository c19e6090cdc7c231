"""How parameters are chosen: the algorithms and their settings, as a person writes them."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, NamedTuple

from pydantic import Field

from crossfold_trainer.contract.base import Model, Rule


class AlgorithmName(StrEnum):
    """How parameters are chosen."""

    TPE = "TPE"
    RANDOM = "Random"
    GRID = "Grid"
    SOBOL = "Sobol"
    CMAES = "CMAES"
    GP = "GP"


class Setting(NamedTuple):
    """A number that an algorithm can be set to."""

    default: float | None
    """None: it follows from the number of parameters."""
    low: float
    """Least value."""
    high: float
    """Greatest value."""
    whole: bool
    """Whether it must be a whole number."""

    @property
    def expects(self) -> str:
        """What a value must be, in words."""
        return f"{'a whole number' if self.whole else 'a number'} from {self.low:g} to {self.high:g}"

    def fits(self, value: float) -> bool:
        """Whether a value is one of these."""
        return self.low <= value <= self.high and not (self.whole and value != int(value))


_STARTUP = Setting(10, 1, 1000, whole=True)

SETTINGS: Mapping[AlgorithmName, Mapping[str, Setting]] = {
    AlgorithmName.TPE: {"startupTrials": _STARTUP, "candidates": Setting(24, 1, 1000, whole=True)},
    AlgorithmName.RANDOM: {},
    AlgorithmName.GRID: {},
    AlgorithmName.SOBOL: {},
    AlgorithmName.CMAES: {
        "populationSize": Setting(None, 4, 1000, whole=True),
        "sigma": Setting(1 / 6, 0.001, 1, whole=False),
    },
    AlgorithmName.GP: {"startupTrials": _STARTUP},
}
"""The settings of each algorithm, by name.

``startupTrials``: trials with a score before the model is asked; the ones before are random (TPE) or Sobol points (GP).
``candidates``: points that TPE draws from its good trials, of which the most promising is taken.
``populationSize``: trials of one generation; by default 4 + floor(3 ln n) for n numeric parameters.
``sigma``: the first standard deviation, as a share of each parameter's range.
"""


def _words(name: AlgorithmName) -> str:
    known = [f"{setting} ({kind.expects})" for setting, kind in SETTINGS[name].items()]
    return f"algorithm {name} has the settings {' and '.join(known)}" if known else f"algorithm {name} has no settings"


def _setting_rules() -> tuple[Rule, ...]:
    """Rules on names, then on ranges; a name has the same range wherever it is known."""
    names = tuple(
        Rule(
            f"self.name != '{name}' || !has(self.settings) || self.settings.all(k, k in {list(settings)!r})",
            f"{_words(name)}: remove the others",
        )
        for name, settings in SETTINGS.items()
    )
    ranges = {setting: kind for settings in SETTINGS.values() for setting, kind in settings.items()}
    return names + tuple(_range_rule(setting, kind) for setting, kind in ranges.items())


def _range_rule(setting: str, kind: Setting) -> Rule:
    value = f"self.settings['{setting}']"
    whole = f" && {value} == double(int({value}))" if kind.whole else ""
    return Rule(
        f"!has(self.settings) || !('{setting}' in self.settings)"
        f" || ({value} >= {float(kind.low)} && {value} <= {float(kind.high)}{whole})",
        f"setting {setting} must be {kind.expects}",
    )


class AlgorithmSpec(Model):
    """How parameters are chosen."""

    name: AlgorithmName = AlgorithmName.TPE
    """TPE (multivariate, with the running trials taken into account), Random, Grid (every cell once), Sobol
    (evenly spread), CMAES (numeric parameters evolve, others are random), or GP (Gaussian process, log expected
    improvement)."""
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 42
    """Seed of the search: the same history gives the same parameters."""
    settings: Annotated[dict[str, float], Field(max_length=8)] = {}
    """Numbers of the algorithm: TPE: startupTrials, candidates. GP: startupTrials. CMAES: populationSize, sigma."""

    rules = _setting_rules()

    def setting(self, name: str) -> float | None:
        """What a setting is set to, or its default; None where that follows from the space."""
        return self.settings.get(name, SETTINGS[self.name][name].default)

    @property
    def problems(self) -> list[str]:
        """What is wrong with the settings, in the rules' words: for specs that were stored before the rules."""
        known = SETTINGS[self.name]
        found = [f"{_words(self.name)}: remove '{setting}'" for setting in self.settings if setting not in known]
        return found + [
            f"setting {setting} must be {known[setting].expects}"
            for setting, value in self.settings.items()
            if setting in known and not known[setting].fits(value)
        ]
