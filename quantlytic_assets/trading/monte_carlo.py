"""What else could have happened: an account's trades in another order, and its returns drawn anew in blocks.

Two questions with two answers. `resampled_trades` shuffles or draws round trips: how deep could the same trades have
gone down? `resampled_returns` draws blocks of successive returns (stationary bootstrap, Politis and Romano 1994), which
keeps what hangs together from one session to the next: how wide is the range of results? Both are seeded: the same
input and seed give the same paths.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
QUANTILES: tuple[float, ...] = (0.05, 0.25, 0.5, 0.75, 0.95)
# Paths are made a part at a time, so that a long history needs no gigabytes.
_VALUES_AT_ONCE = 4_000_000


@dataclass(frozen=True)
class Paths:
    """What many simulated paths of an account come to.

    fan: step (0 is the start), then a column a quantile such as q05 with the equity in money. final: equity at the end,
    drawdowns: the deepest fall from a peak as a fraction that is not positive, both one a path.
    """

    fan: pl.DataFrame
    final: Floats
    drawdowns: Floats

    def drawdown_quantiles(self, quantiles: Sequence[float] = QUANTILES) -> dict[str, float]:
        """Drawdowns by quantile: q05 is one that only one path in twenty was deeper than."""
        found = np.quantile(self.drawdowns, quantiles).tolist()
        return dict(zip(map(_name, quantiles), found, strict=True))

    def probability_of_drawdown(self, depth: float) -> float:
        """The share of paths that fell at least as deep; depth as a fraction, with or without its sign."""
        return float((self.drawdowns <= -abs(depth)).mean())

    def probability_of_loss(self) -> float:
        """The share of paths that ended with less than they began with."""
        return float((self.final < self.fan.item(0, 1)).mean())


def resampled_trades(
    profits: ArrayLike,
    capital: float,
    paths: int = 1000,
    seed: int = 0,
    method: Literal["shuffle", "bootstrap"] = "shuffle",
    quantiles: Sequence[float] = QUANTILES,
) -> Paths:
    """Paths of the same round trips in another order ("shuffle"), or drawn with repetition ("bootstrap").

    profits: money of each round trip after costs; steps are trades, money is added and not compounded. Shuffled paths
    all end alike and differ in their drawdowns. Raises `ValueError` without a trade and for capital of 0 or less.
    """
    values = _checked(profits, "round trips", 1)
    if not capital > 0:
        raise ValueError(f"capital is above 0, not {capital}")
    if method not in ("shuffle", "bootstrap"):
        raise ValueError(f"method is shuffle or bootstrap, not {method!r}")
    random = np.random.default_rng(seed)

    def drawn(number: int) -> Floats:
        if method == "bootstrap":
            picked = values[random.integers(0, len(values), (number, len(values)))]
        else:
            picked = random.permuted(np.broadcast_to(values, (number, len(values))), axis=1)
        return capital + np.cumsum(picked, axis=1)

    return _paths(drawn, len(values), paths, capital, quantiles)


def resampled_returns(
    returns: ArrayLike,
    capital: float = 1.0,
    paths: int = 1000,
    seed: int = 0,
    mean_block: float | None = None,
    length: int | None = None,
    quantiles: Sequence[float] = QUANTILES,
) -> Paths:
    """Paths of returns drawn in blocks of random length from the account's own, compounded.

    returns: simple returns a period, oldest first. mean_block: the mean length of a block in periods, default the cube
    root of their number (the order that is best for means); 1 draws single returns. length: periods of a path, default
    as many as there are. Raises `ValueError` for fewer than two returns, for NaN, and for settings out of range.
    """
    values = _checked(returns, "returns", 2)
    if not capital > 0:
        raise ValueError(f"capital is above 0, not {capital}")
    block = max(1.0, len(values) ** (1 / 3)) if mean_block is None else float(mean_block)
    if not 1 <= block < float("inf"):
        raise ValueError(f"mean_block is at least 1, not {block}")
    steps = len(values) if length is None else length
    if steps < 1:
        raise ValueError(f"length is at least 1, not {steps}")
    random = np.random.default_rng(seed)

    def drawn(number: int) -> Floats:
        places = stationary_places(random, len(values), (number, steps), block)
        grown: Floats = np.cumprod(1 + values[places], axis=1, dtype=np.float64)
        return capital * grown

    return _paths(drawn, steps, paths, capital, quantiles)


def stationary_places(
    random: np.random.Generator, observations: int, shape: tuple[int, int], mean_block: float
) -> NDArray[np.intp]:
    """Which observation each step of each path takes: (paths, steps), by the stationary bootstrap.

    A step goes on with the next observation (after the last comes the first), or begins a block at a random one with
    the probability 1 / mean_block.
    """
    steps = shape[1]
    begins = random.random(shape) < 1 / mean_block
    begins[:, 0] = True
    first = random.integers(0, observations, shape)
    step = np.arange(steps)
    # Where the block of each step began: the last beginning up to it.
    began = np.maximum.accumulate(np.where(begins, step, 0), axis=1)
    places: NDArray[np.intp] = (np.take_along_axis(first, began, axis=1) + step - began) % observations
    return places


def _paths(drawn: Callable[[int], Floats], steps: int, paths: int, capital: float, quantiles: Sequence[float]) -> Paths:
    """The paths that `drawn(number)` makes as equity (number, steps), summed up."""
    if paths < 1:
        raise ValueError(f"there is at least one path, not {paths}")
    if not quantiles or not all(0 <= one <= 1 for one in quantiles):
        raise ValueError(f"quantiles are from 0 to 1, not {list(quantiles)}")
    at_once = max(1, _VALUES_AT_ONCE // steps)
    # A row a step: quantiles over many paths are fastest where these lie side by side.
    kept = np.empty((steps, paths), np.float32 if paths * steps > _VALUES_AT_ONCE else np.float64)
    final, drawdowns = np.empty(paths), np.empty(paths)
    for first in range(0, paths, at_once):
        part = slice(first, min(paths, first + at_once))
        equity = drawn(part.stop - part.start)
        kept[:, part], final[part], drawdowns[part] = equity.T, equity[:, -1], _deepest(equity, capital)
    fan = np.quantile(kept, quantiles, axis=1, overwrite_input=True)
    columns = {_name(one): np.array([capital, *row]) for one, row in zip(quantiles, fan, strict=True)}
    return Paths(pl.DataFrame({"step": range(steps + 1), **columns}), final, drawdowns)


def _deepest(equity: Floats, capital: float) -> Floats:
    """The deepest drawdown of each path; the start is a peak too, and an account that is ruined has lost all of it."""
    peaks = np.maximum(np.maximum.accumulate(equity, axis=1), capital)
    return np.maximum((equity / peaks - 1).min(axis=1), -1.0)


def _name(quantile: float) -> str:
    whole, _, rest = f"{quantile * 100:.3f}".rstrip("0").partition(".")
    return f"q{whole:0>2}" + (f"_{rest}" if rest else "")


def _checked(values: ArrayLike, what: str, least: int) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or len(array) < least:
        raise ValueError(f"{what} are a row of at least {least}, not an array of shape {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{what} hold NaN or infinite numbers")
    return array
