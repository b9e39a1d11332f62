"""What a universe declares: datasets with their symbols, strategies on them, and the error of a file that is wrong.

Nothing here reads, checks or computes. What a universe file may hold is in `declarations`, how it becomes these in
`loading`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from quantlytic_assets.thresholds.condition import Condition
    from quantlytic_assets.trading.engine.settings import EngineSettings


@dataclass(frozen=True)
class Instrument:
    """A symbol and the first and last session (inclusive) on which it belongs to its dataset; None: no such bound.

    `names`: what a vendor calls it, by vendor, where that can't be derived.
    """

    symbol: str
    first: date | None = None
    last: date | None = None
    names: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Outage:
    """A time [start, end), UTC, in which a venue is known to have been down: nobody has bars. `source`: who says."""

    venue: str
    start: datetime
    end: datetime
    source: str = ""


@dataclass(frozen=True)
class Comparison:
    """Another dataset with bars of the same market, and how far apart (1/10,000 of the price) the two may be."""

    dataset: str
    tolerance_bps: float


@dataclass(frozen=True)
class Dataset:
    """One market at one interval.

    `last_session` None means open-ended; `delay` is added to a bar's close time. `feed` is the live feed that
    `quantlytic feed` runs for it, if any. `stale_after`: a running session without a new bar for so long raises an
    alert; None: none does. `keep`: older sessions leave the lake; None: all stay. `keep_hot`: older sessions leave the
    hot store; None: it has what the lake has. `outages` are the known ones of its venue. `compare_with`: what its
    prices are checked against, if anything. `incomplete_bars`: `drop` or `keep`, whether features, labels, predictions
    and trades may use feature bars that have not ended or have a hole.
    `replay_from`: vendors are not asked for sessions from this one on, `quantlytic replay` publishes them.
    `features`: declarations and sets of features, in the order of their columns; `plugins`: where the user's own are.
    """

    name: str
    calendar: str
    interval: str
    partition: str
    first_session: date
    last_session: date | None
    vendors: tuple[str, ...]
    venue: str
    out_of_session: str
    delay: timedelta
    feature_intervals: tuple[str, ...]
    symbols: tuple[Instrument, ...]
    feed: str | None = None
    stale_after: timedelta | None = None
    keep: timedelta | None = None
    keep_hot: timedelta | None = None
    outages: tuple[Outage, ...] = ()
    compare_with: Comparison | None = None
    incomplete_bars: str = "drop"
    replay_from: date | None = None
    features: tuple[str, ...] = ("core",)
    plugins: tuple[str, ...] = ()


@dataclass(frozen=True)
class Strategy:
    """A rule on a dataset, and how it is traded.

    `symbols` are resolved to the dataset's own where the file names none. `rule` is the declaration as the registry of
    rules binds it (`universe.plugins.rules_with(plugins).bind(rule)`). `settings` are the account's, with its orders,
    exits, sizing, limits and costs. `declared` and `plugins` are the dataset's features and plugins. `bar_by_bar`: the
    rule is a bot, which decides with its positions in view and has no signals beforehand. `broker` executes orders.
    """

    name: str
    dataset: str
    interval: str
    symbols: tuple[str, ...]
    rule: str | Mapping[str, Mapping[str, Any] | None] = field(hash=False)
    settings: EngineSettings
    declared: tuple[str, ...] = ("core",)
    plugins: tuple[str, ...] = ()
    bar_by_bar: bool = False
    broker: str = "simulated"

    @property
    def rule_name(self) -> str:
        """The name of the rule without its parameters."""
        return self.rule if isinstance(self.rule, str) else next(iter(self.rule))

    @property
    def at_broker(self) -> bool:
        """Whether orders leave this house: a broker executes them, and reports what became of them."""
        return self.broker != "simulated"


@dataclass(frozen=True, kw_only=True)
class ModelStrategy(Strategy):
    """A model on a dataset, and a rule that makes positions of its score.

    `features` are columns of features.indicators that the model learns from; None means those of the set `core`.
    `warm_up_bars`: bars until all of them are defined. `horizon`: bars ahead that it predicts.
    """

    model: str
    features: tuple[str, ...] | None
    horizon: int
    retrain: str
    min_train_sessions: int
    embargo_sessions: int
    warm_up_bars: int = 200


@dataclass(frozen=True, kw_only=True)
class PortfolioStrategy(Strategy):
    """Several strategies of one dataset and interval in one account.

    `members` decide as they do alone; their own exits, sizing, limits and accounts are theirs. The rule has their
    shares of the equity.
    """

    members: tuple[Strategy, ...]

    @property
    def shares(self) -> Mapping[str, Any]:
        """Each member's share of the equity, by its name."""
        return {} if isinstance(self.rule, str) else self.rule[self.rule_name] or {}


@dataclass(frozen=True)
class Threshold:
    """An alert on a condition: of symbols of a dataset at an interval, or of a strategy's account (no dataset).

    `cooldown`: how long after it was told it is not told again.
    """

    when: Condition
    cooldown: timedelta
    dataset: str | None = None
    symbols: tuple[str, ...] = ()
    interval: str | None = None

    @property
    def key(self) -> str:
        """What it is remembered by: another condition is another alert, other symbols or cooldown are not."""
        return " ".join(part for part in (self.dataset, self.interval, self.when.text) if part)


@dataclass(frozen=True)
class Universe:
    """Everything a universe file declares, by name and in the file's order."""

    path: Path
    datasets: dict[str, Dataset]
    strategies: dict[str, Strategy]
    alerts: tuple[Threshold, ...] = ()

    @property
    def models(self) -> dict[str, ModelStrategy]:
        """The strategies that have a model."""
        return {name: one for name, one in self.strategies.items() if isinstance(one, ModelStrategy)}


class UniverseError(Exception):
    """A universe file with mistakes: `path`, and `mistakes` with one line each."""

    def __init__(self, path: Path, mistakes: Sequence[str]):
        super().__init__(path, mistakes)
        self.path = path
        self.mistakes = list(mistakes)

    def __str__(self) -> str:
        return "\n".join(self.mistakes)
