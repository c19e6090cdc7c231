"""Searches with known truth: y_jfs = mu_j + u_fs + phi_jf + eps_jfs from drawn variance components.

Trials lie below the best possible by an exponential amount, as those of a search do: a few good ones, many mediocre,
some bad. Five kinds of noise; phi and eps have a standard deviation of 0.01 each before it is changed:

- gaussian: as the model of the racing policy has it.
- heteroscedastic: worse trials are noisier, up to four times.
- t3: Student t with three degrees of freedom, the same variance; a run in a hundred is far off.
- mixed: heteroscedastic, half of the trials Gaussian and half t3, and a factor of each trial's own on its noise,
  lognormal with sigma 0.2.
- unequal: as mixed with sigma 0.4. Beyond what the policy is made for: it shows how the error grows when trials are not
  alike.
"""

import numpy as np
from numpy.typing import NDArray

KINDS = ("gaussian", "heteroscedastic", "t3", "mixed", "unequal")
TRIALS = 60
_BEST, _SCALE, _SD, _UNIT_SD = 0.9, 0.04, 0.01, 0.03


def study(kind: str, folds: int, seeds: int, seed: int) -> NDArray[np.float64]:
    """The full score matrix of one search, (TRIALS, folds, seeds)."""
    rng = np.random.default_rng([KINDS.index(kind), folds, seeds, seed])
    shortfall = rng.exponential(_SCALE, TRIALS)
    sd = np.full(TRIALS, _SD)
    if kind in ("heteroscedastic", "mixed", "unequal"):
        sd *= 1 + 3 * np.minimum(1, shortfall / (3 * _SCALE))
    own = {"mixed": 0.2, "unequal": 0.4}.get(kind, 0.0)
    sd *= rng.lognormal(0, own, TRIALS)
    heavy = rng.random(TRIALS) < {"t3": 1.0, "mixed": 0.5, "unequal": 0.5}.get(kind, 0.0)
    phi = _noise(rng, heavy, (TRIALS, folds, 1))
    eps = _noise(rng, heavy, (TRIALS, folds, seeds))
    effects = rng.normal(0, _UNIT_SD, (1, folds, 1)) + rng.normal(0, _UNIT_SD / 3, (1, folds, seeds))
    return _BEST - shortfall[:, None, None] + effects + sd[:, None, None] * (phi + eps)


def alike(
    folds: int, seeds: int, ratio: float, seed: int, *, completed: int = 20, racers: int = 25
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Completed trials of about the same mean with Gaussian noise, and racers with ``ratio`` times as much of it."""
    rng = np.random.default_rng([folds, seeds, int(1000 * ratio), seed])
    effects = rng.normal(0, _UNIT_SD, (1, folds, 1)) + rng.normal(0, _UNIT_SD / 3, (1, folds, seeds))

    def trials(count: int, sd: float) -> NDArray[np.float64]:
        noise = rng.normal(size=(count, folds, 1)) + rng.normal(size=(count, folds, seeds))
        return _BEST - 0.1 * _SCALE * rng.exponential(size=(count, 1, 1)) + effects + sd * noise

    return trials(completed, _SD), trials(racers, ratio * _SD)


def _noise(rng: np.random.Generator, heavy: NDArray[np.bool_], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Noise of variance 1: t with three degrees of freedom for trials that are heavy, else Gaussian."""
    drawn = rng.standard_t(3, size=shape) / np.sqrt(3)
    return np.where(heavy[:, None, None], drawn, rng.normal(size=shape))
