"""Alerts on thresholds: the rows that they are about, from the lake and the hot store, and what is to be told now.

The lake is what is read; where the live path runs on this machine, rows that the lake lacks are the hot store's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

import orjson
import polars as pl

from quantlytic_assets.calendars.intervals import INTERVALS, TIME
from quantlytic_assets.serving.rows import micros
from quantlytic_assets.tables.features import indicators, usable_bars
from quantlytic_assets.tables.pages import LakeRows
from quantlytic_assets.tables.trading import equity
from quantlytic_assets.thresholds.condition import BAR_FIELDS, STALENESS
from quantlytic_assets.thresholds.standing import Change, Standing, followed

if TYPE_CHECKING:
    from quantlytic_assets.resources import Resources
    from quantlytic_assets.serving.hot_store import HotStore
    from quantlytic_assets.universe.models import Dataset, Threshold

# Rows of so many days are looked at when an alert is new; it is told of what is there now, not of the past.
_AT_FIRST = timedelta(days=10)
# So much before the last row that was looked at holds another one, over weekends and holidays.
_BEFORE = timedelta(days=7)


@dataclass(frozen=True)
class Notice:
    """Something to be told of an alert."""

    key: str
    title: str
    body: str


@dataclass
class Turn:
    """What a look at all alerts came to: what is to be told, and the standings to be kept once that is done."""

    notices: list[Notice] = field(default_factory=list)
    standings: dict[str, dict[str, Standing]] = field(default_factory=dict)

    def keep(self, resources: Resources) -> None:
        """Keep the standings."""
        for alert, standings in self.standings.items():
            resources.alert_states.write(alert, standings)
        resources.alert_states.keep_only(self.standings)


def look(
    resources: Resources,
    alerts: Iterable[Threshold],
    datasets: Mapping[str, Dataset],
    running_since: Callable[[Dataset, datetime], datetime | None],
    now: datetime,
) -> Turn:
    """Look at all alerts. `running_since`: when the running stretch of a dataset's session began, None if none runs."""
    turn = Turn()
    rows_of = _Rows(resources, now)
    for alert in alerts:
        known = resources.alert_states.read(alert.key)
        if alert.dataset is None:
            found = rows_of.accounts(alert)
        elif alert.when.kind == STALENESS:
            since = running_since(datasets[alert.dataset], now)
            found = rows_of.ages(alert, datasets[alert.dataset], since)
        else:
            found = rows_of.bars(alert, datasets[alert.dataset], known)
        turn.standings[alert.key] = {}
        for name, rows in found.items():
            standing, changes = followed(alert.when, rows, known.get(name, Standing()), alert.cooldown, now)
            turn.standings[alert.key][name] = standing
            turn.notices += [_notice(alert, name, change, rows) for change in changes]
    rows_of.close()
    return turn


def _notice(alert: Threshold, name: str, change: Change, rows: pl.DataFrame) -> Notice:
    row = rows.filter(pl.col("time") == change.at).row(-1, named=True)
    values = ", ".join(f"{column} is {_said(alert, row[column])}" for column in alert.when.columns)
    where = f" ({alert.dataset}, {alert.interval})" if alert.dataset else ""
    title = f"{name}: {alert.when.text}" + (" is over" if change.over else "")
    body = f"{values} at {change.at:%Y-%m-%d %H:%M} UTC{where}."
    return Notice(f"threshold:{alert.key}:{name}:{change.at.isoformat()}:{change.over}", title, body)


def _said(alert: Threshold, value: float | None) -> str:
    if value is None:
        return "not known"
    if alert.when.kind == STALENESS:
        return str(timedelta(seconds=round(value)))
    return f"{value:.1%}" if alert.when.kind == "drawdown" else f"{value:.6g}"


class _Rows:
    """Rows by symbol or strategy: `time` and a condition's columns, oldest first. What the lake lacks has none."""

    def __init__(self, resources: Resources, now: datetime):
        self._lake = LakeRows(resources.lake)
        self._hot = resources.hot if (resources.settings.data / "hot" / "data.mdb").exists() else None
        self._now = now

    def close(self) -> None:
        """Let the lake go."""
        self._lake.close()

    def accounts(self, alert: Threshold) -> dict[str, pl.DataFrame]:
        """Drawdowns by session, one frame for all strategies that the condition names."""
        named = {one.column: one.name for one in alert.when.operands if one.kind == "drawdown"}
        highest = pl.col("equity").cum_max()
        frames = [
            equity(self._lake, strategy, ["session", "equity"]).select(
                "session", ((highest - pl.col("equity")) / highest).alias(column)
            )
            for column, strategy in named.items()
        ]
        joined = frames[0]
        for other in frames[1:]:
            joined = joined.join(other, on="session", how="full", coalesce=True)
        rows = joined.sort("session").with_columns(pl.col("session").cast(TIME).alias("time"))
        return {", ".join(dict.fromkeys(named.values())): rows}

    def ages(self, alert: Threshold, dataset: Dataset, since: datetime | None) -> dict[str, pl.DataFrame]:
        """A row of this moment for each symbol: seconds since its newest bar was due, 0 while no session runs."""
        step = INTERVALS[alert.interval or dataset.interval]
        newest = self._joined(alert, dataset, (self._now - _AT_FIRST).date(), ["close"])
        last = dict(newest.group_by("symbol").agg(pl.col("time").max()).iter_rows())
        found = {}
        for symbol in alert.symbols:
            begun = [one for one in (since, last[symbol] + step if symbol in last else None) if one is not None]
            age = (self._now - max(begun) - dataset.delay).total_seconds() if since is not None else 0.0
            schema = {"time": TIME, STALENESS: pl.Float64}
            found[symbol] = pl.DataFrame({"time": [self._now], STALENESS: [max(0.0, age)]}, schema)
        return found

    def bars(self, alert: Threshold, dataset: Dataset, known: Mapping[str, Standing]) -> dict[str, pl.DataFrame]:
        """Bars with their features, from a little before the first row that was not looked at."""
        seen = [known[symbol].through for symbol in alert.symbols if symbol in known]
        first = min((one for one in seen if one is not None), default=self._now - _AT_FIRST) - _BEFORE
        rows = self._joined(alert, dataset, first.date(), alert.when.columns)
        parts = rows.partition_by("symbol", as_dict=True)
        return {symbol: parts[(symbol,)].sort("time") for symbol in alert.symbols if (symbol,) in parts}

    def _joined(self, alert: Threshold, dataset: Dataset, since: date, columns: list[str]) -> pl.DataFrame:
        """symbol, time, columns of bars and features that can be used by now; the hot store has what the lake lacks."""
        interval = alert.interval or dataset.interval
        of_bars = [name for name in columns if name in BAR_FIELDS]
        of_features = [name for name in columns if name not in BAR_FIELDS]
        keys = ["symbol", "open_time"]
        rows = usable_bars(
            self._lake, dataset.name, interval, [*keys, "available_at", *of_bars],
            incomplete=False, since=since, symbols=alert.symbols,
        ).filter(pl.col("available_at") <= self._now)  # fmt: skip
        if of_features:
            more = indicators(
                self._lake, dataset.name, interval, [*keys, *of_features], since=since, symbols=alert.symbols
            )
            rows = rows.join(more, on=keys, how="left")
        schema = {"symbol": pl.String, "time": TIME, **dict.fromkeys(columns, pl.Float64)}
        rows = rows.rename({"open_time": "time"}).select(pl.col(name).cast(kind) for name, kind in schema.items())
        if self._hot is not None:
            hot = _hot_rows(self._hot, alert, dataset, interval, since, of_bars, of_features)
            rows = pl.concat([rows, pl.DataFrame(hot, schema, orient="row")]).unique(
                ["symbol", "time"], keep="first", maintain_order=True
            )
        return rows.sort("symbol", "time")


def _hot_rows(
    hot: HotStore,
    alert: Threshold,
    dataset: Dataset,
    interval: str,
    since: date,
    of_bars: list[str],
    of_features: list[str],
) -> list[dict[str, object]]:
    """The store's rows of bars that have all that is asked for; a block is of a session or of a month."""
    begin = since.replace(day=1) if dataset.partition == "month" else since
    found: list[dict[str, object]] = []
    with hot.read() as store:
        for symbol in alert.symbols:
            features = {
                row["t"]: row
                for _, block in (
                    store.blocks(dataset.name, f"features/{interval}", symbol, begin) if of_features else ()
                )
                for row in orjson.loads(b"[" + block.body + b"]")
            }
            for _, block in store.blocks(dataset.name, f"bars/{interval}", symbol, begin):
                for row in orjson.loads(b"[" + block.body + b"]"):
                    if of_features and row["t"] not in features:
                        continue
                    values = {name: row.get(name[0]) for name in of_bars}
                    values |= {name: features[row["t"]].get(name) for name in of_features}
                    time = datetime.fromtimestamp(micros(row["t"]) / 1e6, UTC)
                    found.append({"symbol": symbol, "time": time, **values})
    return found
