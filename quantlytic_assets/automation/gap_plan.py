"""What a gap sensor asks for next, and why it lets the other holes be: pure, so that each turn can be tried by itself.

Which holes are worth asking for is decided in `services.gaps`; the memory only keeps a hole that stays one from being
asked for again at once.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date

import polars as pl

# Before a hole that stayed one is asked for again: four times as long after each try, up to the second figure.
_FIRST_WAIT, _LONGEST_WAIT = 900.0, 86_400.0
# So much of a vendor's limits at once: bars are in the tables before the next run asks for more.
_MOST_WEIGHT = 1_000

_ASKED_SCHEMA = pl.Schema(
    {"partition": pl.String, "symbol": pl.String, "through": pl.Date, "tries": pl.Int64, "at": pl.Float64}
)


@dataclass(frozen=True)
class Asked:
    """A sensor's memory, _ASKED_SCHEMA: holes that were asked for, through which session, how often, when last."""

    holes: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=_ASKED_SCHEMA))

    def to_json(self) -> str:
        """The cursor: symbols that were asked for together stand together."""
        together = (
            self.holes.group_by("partition", "through", "tries", "at")
            .agg(pl.col("symbol").sort())
            .sort("partition", "at", "through", "tries")
        )
        return json.dumps(
            [[row[0], row[1].isoformat(), row[2], row[3], row[4]] for row in together.iter_rows()],
            separators=(",", ":"),
        )

    @classmethod
    def from_json(cls, cursor: str | None) -> Asked:
        """A cursor read back."""
        rows = [
            (partition, symbol, date.fromisoformat(through), tries, at)
            for partition, through, tries, at, symbols in json.loads(cursor or "[]")
            for symbol in symbols
        ]
        return cls(pl.DataFrame(rows, schema=_ASKED_SCHEMA, orient="row"))


@dataclass(frozen=True)
class Request:
    """Partitions [first, last], both inclusive, and the symbols to ask for in them.

    pairs: symbols' sessions with holes among them. weight: about what asking counts against the vendor's limits.
    """

    first: str
    last: str
    symbols: tuple[str, ...]
    pairs: int
    weight: int


def next_request(
    asked: Asked,
    decided: pl.DataFrame,
    keys: Sequence[str],
    now: float,
    cost: Callable[[str, date, date], int],
    allowance: int | None = None,
    most_partitions: int = 250,
) -> tuple[Request | None, Asked]:
    """The oldest holes that are worth asking for, in neighbouring partitions, and the memory to keep.

    decided: `services.gaps.decisions` with the key of each row's `partition`; keys: all partition keys, oldest first;
    now: seconds since 1970; cost: what asking for a symbol's sessions (first, last) counts against the vendor's limits;
    allowance: what those have room for, None for as much as one likes. To be called while no run is at work.
    """
    # What is not to be asked for any more is forgotten.
    asking = decided.filter(decision="ask")
    known = asked.holes.join(asking.select("partition", "symbol").unique(), on=["partition", "symbol"], how="semi")
    wait = (_FIRST_WAIT * 4.0 ** (pl.col("tries") - 1).clip(0, 8)).clip(0, _LONGEST_WAIT)
    placed = decided.join(known, on=["partition", "symbol"], how="left").with_columns(
        ((pl.col("decision") == "ask") & (pl.col("session") <= pl.col("through")) & (pl.col("at") + wait > now))
        .fill_null(False)
        .alias("waiting")
    )
    due = placed.filter(pl.col("decision") == "ask", ~pl.col("waiting"), pl.col("partition").is_in(list(keys)))
    if due.is_empty():
        return None, Asked(known)
    # Fetching itself doesn't ask for a vendor's holes and known outages; the others that are not due are kept out here.
    quiet = pl.col("decision").is_in(["ask", "vendor_hole", "known_outage"])
    left = placed.filter(~quiet | pl.col("waiting"))
    limit = min(_MOST_WEIGHT, allowance if allowance is not None else _MOST_WEIGHT)
    chosen, symbols, weight = _choose(due, left, keys, limit, cost, most_partitions)
    taken = due.filter(pl.col("partition").is_in(chosen), pl.col("symbol").is_in(symbols))
    request = Request(chosen[0], chosen[-1], tuple(symbols), len(taken), weight)
    return request, Asked(_remember(known, taken, now))


def _choose(
    due: pl.DataFrame,
    left: pl.DataFrame,
    keys: Sequence[str],
    limit: int,
    cost: Callable[[str, date, date], int],
    most_partitions: int,
) -> tuple[list[str], list[str], int]:
    """Neighbouring partitions from the oldest due one on, the symbols, and the weight of asking for them."""
    stretches = _stretches(due, cost)
    kept_out = {key: set(symbols) for key, symbols in left.group_by("partition").agg("symbol").iter_rows()}
    begin = keys.index(due["partition"].min())
    chosen: list[str] = []
    wanted: dict[str, _Stretch] = {}
    weight = 0
    for key in keys[begin : begin + most_partitions]:
        together = {*wanted, *stretches.get(key, {})}
        if key not in stretches or (chosen and any(kept_out.get(one, set()) & together for one in (*chosen, key))):
            break
        grown = wanted | {symbol: one.after(wanted.get(symbol)) for symbol, one in stretches[key].items()}
        if chosen:
            more = sum(one.weight(symbol, cost) for symbol, one in grown.items())
            if more > limit:
                break
            chosen, wanted, weight = [*chosen, key], grown, more
            continue
        chosen = [key]
        for symbol, one in sorted(grown.items()):
            more = weight + one.weight(symbol, cost)
            if wanted and more > limit:
                return chosen, sorted(wanted), weight
            wanted[symbol], weight = one, more
    return chosen, sorted(wanted), weight


@dataclass(frozen=True)
class _Stretch:
    """What is to be asked for of a symbol: the span of its sessions that are missing whole, and the others' weight."""

    first: date | None
    last: date | None
    parts: int

    def after(self, before: _Stretch | None) -> _Stretch:
        """Both together."""
        if before is None:
            return self
        return _Stretch(before.first or self.first, self.last or before.last, before.parts + self.parts)

    def weight(self, symbol: str, cost: Callable[[str, date, date], int]) -> int:
        """What asking counts."""
        whole = cost(symbol, self.first, self.last) if self.first is not None and self.last is not None else 0
        return whole + self.parts


def _stretches(due: pl.DataFrame, cost: Callable[[str, date, date], int]) -> dict[str, dict[str, _Stretch]]:
    """By partition and symbol."""
    grouped = (
        due.group_by("partition", "symbol")
        .agg(
            pl.col("session").filter("whole").min().alias("first"),
            pl.col("session").filter("whole").max().alias("last"),
            pl.col("holes").filter(~pl.col("whole")).sum().alias("holes"),
            (~pl.col("whole")).sum().alias("sessions"),
            pl.col("session").max().alias("newest"),
        )
        .sort("partition", "symbol")
    )
    found: dict[str, dict[str, _Stretch]] = {}
    for partition, symbol, first, last, holes, sessions, newest in grouped.iter_rows():
        # A hole may be as long as its session: at least what that would count.
        parts = max(holes, sessions * cost(symbol, newest, newest)) if sessions else 0
        found.setdefault(partition, {})[symbol] = _Stretch(first, last, parts)
    return found


def _remember(known: pl.DataFrame, taken: pl.DataFrame, now: float) -> pl.DataFrame:
    new = (
        taken.group_by("partition", "symbol")
        .agg(
            pl.col("session").max().alias("through"),
            # A hole that came later begins anew.
            pl.when(pl.col("session") <= pl.col("through")).then("tries").otherwise(0).max().alias("tries"),
        )
        .select(
            "partition",
            "symbol",
            "through",
            (pl.col("tries") + 1).cast(pl.Int64),
            pl.lit(now, pl.Float64).alias("at"),
        )
    )
    before = known.join(new, on=["partition", "symbol"], how="anti")
    return pl.concat([before, new]).sort("partition", "symbol")
