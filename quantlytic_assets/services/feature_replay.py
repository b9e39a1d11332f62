"""Features computed again from data that ends at a bar: whether a table has what could have been known then.

One comparison holds three promises at once. The bars end where the row was decided on, so a value that needed a later
bar is another one. They begin `warmup` bars before it, so a value that needed an earlier one is another one too; sums
since the first bar go on from what is stored there. And the last bar is taken by the online handles as well as by
batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import polars as pl

from quantlytic_assets.calendars.intervals import INTERVALS
from quantlytic_assets.features.batch import compute
from quantlytic_assets.features.columns import of_family
from quantlytic_assets.features.online import Board
from quantlytic_assets.features.spec import column_names, column_scales
from quantlytic_assets.schemas.features import FAMILIES
from quantlytic_assets.services.features import HISTORY_BARS, warmup, with_others
from quantlytic_assets.services.sums import Sums
from quantlytic_assets.tables.features import bars_through, drawn_rows, rows_at
from quantlytic_assets.universe.feature_choice import features_of
from quantlytic_assets.universe.plugins import registry_with

if TYPE_CHECKING:
    from quantlytic_assets.features.spec import Feature
    from quantlytic_assets.tables.select import Queries
    from quantlytic_assets.universe.models import Dataset

# Rows of features that are not what can be computed from the bars up to them. `way`: batch or online.
REPLAY_SCHEMA = pl.Schema(
    {
        "session": pl.Date, "symbol": pl.String, "interval": pl.String, "open_time": pl.Datetime("us", "UTC"),
        "column": pl.String, "way": pl.String, "stored": pl.Float64, "computed": pl.Float64,
    }
)  # fmt: skip
_SHORTEST_SESSION = timedelta(hours=6, minutes=30)
_RELATIVE = 1e-9


def replayed(
    lake: Queries, dataset: Dataset, family: str, since: date, before: date, places: int
) -> tuple[int, pl.DataFrame]:
    """(values compared, REPLAY_SCHEMA rows) of a family, for all symbols at `places` times in sessions [since, before).

    The times are drawn anew in each call.
    """
    features = of_family(features_of(dataset), family)
    compared, wrong = 0, [REPLAY_SCHEMA.to_frame()]
    for interval, open_time, session in drawn_rows(lake, dataset.name, since, before, places).iter_rows():
        columns = column_names(features)
        stored = rows_at(lake, dataset.name, interval, session, open_time, ["close", "history_bars", *columns])
        bars = _bars_until(lake, dataset, features, interval, open_time, session)
        # Where a symbol has more bars than were read, and fewer than decide its values were read, nothing can be said.
        read = bars.filter(pl.col("close").is_not_null()).group_by("symbol").len("read")
        enough = (pl.col("read") > warmup(features)) | (pl.col("history_bars") < HISTORY_BARS)
        stored = stored.join(read, on="symbol").filter(enough)
        sums = [feature for feature in features if feature.spec.cumulative]
        begun = Sums(lake, FAMILIES[family], dataset.name, sums, before).first_stored(bars) if sums else None
        for way, found in _computed(bars, features, dataset, begun).items():
            both = stored.join(found, on="symbol", suffix="_again")
            compared += len(both) * len(columns)
            at = (interval, open_time, session)
            wrong += [_different(both, name, scale, at, way) for name, scale in column_scales(features).items()]
    return compared, pl.concat(wrong)


def _bars_until(
    lake: Queries, dataset: Dataset, features: Sequence[Feature], interval: str, open_time: datetime, session: date
) -> pl.DataFrame:
    """The usable bars up to one, in the shape that features are computed from; others have no prices."""
    count = warmup(features) + 1
    # Sessions have weekends and holidays between them, and bars may be missing.
    sessions = count * INTERVALS[interval] / _SHORTEST_SESSION
    since = session - timedelta(days=int(max(sessions, count if interval == "1d" else 0) * 1.8) + 10)
    bars = bars_through(lake, dataset.name, interval, open_time, session, count=count * 2, since=since)
    usable = pl.col("close").is_not_null()
    if dataset.incomplete_bars != "keep":
        usable &= pl.col("complete")
    prices = [pl.when(usable).then(name).alias(name) for name in ("open", "high", "low", "close", "volume")]
    listing = pl.coalesce("listing", "symbol").alias("listing")
    return with_others(lake, bars.with_columns(*prices, listing, pl.col("shares").fill_null(1.0)), features)


def _computed(
    bars: pl.DataFrame, features: Sequence[Feature], dataset: Dataset, begun: pl.DataFrame | None
) -> dict[str, pl.DataFrame]:
    """Symbol and the features' columns at each symbol's last bar, by batch and online; sums go on from `begun`."""
    last = compute(bars, features, registry_with(dataset.plugins), begun).group_by("symbol", maintain_order=True).last()
    made = {"batch": last}
    own = [feature for feature in features if feature.spec.kind != "cross_section"]
    newest = pl.col("open_time") == pl.col("open_time").max().over("symbol")
    board = Board(own)
    board.open(bars.filter(~newest), begun)
    updated: list[Mapping[str, Any]] = [
        {"symbol": bar["symbol"], **board.update(bar["symbol"], bar)} for bar in bars.filter(newest).to_dicts()
    ]
    schema = {"symbol": pl.String, **dict.fromkeys(board.columns, pl.Float64)}
    made["online"] = pl.DataFrame(updated, schema=schema).with_columns(pl.col(pl.Float64).fill_nan(None))
    return made


def _different(both: pl.DataFrame, column: str, scale: str, at: tuple[str, datetime, date], way: str) -> pl.DataFrame:
    """REPLAY_SCHEMA rows of a column whose two values differ by more than rounding."""
    interval, open_time, session = at
    if f"{column}_again" not in both.columns:
        return REPLAY_SCHEMA.to_frame()
    stored, again = pl.col(column), pl.col(f"{column}_again")
    # A difference of prices has the digits of the prices.
    size = pl.max_horizontal(stored.abs(), pl.col("close") if scale != "ratio" else pl.lit(1.0))
    same = ((stored - again).abs() <= _RELATIVE * size).fill_null(False) | (stored.is_null() & again.is_null())
    return both.filter(~same).select(
        pl.lit(session, pl.Date).alias("session"),
        "symbol",
        pl.lit(interval).alias("interval"),
        pl.lit(open_time, REPLAY_SCHEMA["open_time"]).alias("open_time"),
        pl.lit(column).alias("column"),
        pl.lit(way).alias("way"),
        stored.alias("stored"),
        again.alias("computed"),
    )
