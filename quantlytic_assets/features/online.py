"""Features bar by bar: the numbers of `batch`, for many symbols of one interval, as bars arrive."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from quantlytic_assets.features.batch import compute
from quantlytic_assets.features.fields import Fields, of_bar
from quantlytic_assets.features.kernels.base import Handle, Kernel, bank_of
from quantlytic_assets.features.spec import Feature, column_names

NAN = float("nan")


class Board:
    """The features of many symbols; each symbol is opened from its history and then updated with its bars.

    Features of a cross-section are not among them: they need all symbols of a time. `kernels.cross_section` has them.
    """

    def __init__(self, features: Sequence[Feature]):
        across = [str(one) for one in features if one.spec.kind == "cross_section"]
        if across:
            raise ValueError(f"{', '.join(across)}: a feature over all symbols of a time has no handle of one symbol")
        self.features = tuple(features)
        self.columns = tuple(column_names(features))
        self._scales = tuple(scale for one in features for scale in one.scales)
        self._inputs = tuple(dict.fromkeys(one.inputs for one in features))
        self._names = tuple(dict.fromkeys(name for inputs in self._inputs for name in inputs))
        # Which rows of these each kind of feature takes, and whether they are what a bar has under their names.
        self._rows = [[self._names.index(name) for name in inputs] for inputs in self._inputs]
        self._as_given = not {"time", "session", "vwap"} & set(self._names)
        kernels: dict[tuple, tuple[int, Kernel, tuple[str, ...]]] = {}
        for one in features:
            kernels.setdefault((one.spec.name, one.values), (len(kernels), one.kernel(), one.inputs))
        # What is computed, each once, and for every column where its value is in that.
        self._kernels = [(kernel, inputs) for _, kernel, inputs in kernels.values()]
        # For each of them, which inputs it takes, and what it gives where they are missing.
        self._plan = [(self._inputs.index(inputs), (NAN,) * kernel.outputs) for kernel, inputs in self._kernels]
        # What all symbols are kept in, and which rows are free there.
        self._banks = [bank_of(kernel, len(inputs)) for kernel, inputs in self._kernels]
        self._free: list[int] = []
        first = np.cumsum([0, *(kernel.outputs for kernel, _ in self._kernels)]).tolist()
        self._places = [
            first[kernels[one.spec.name, one.values][0]] + place for one in features for place in one.selected
        ]
        self._all = self._places == list(range(first[-1]))
        self._symbols: dict[str, _Symbol] = {}

    @property
    def inputs(self) -> tuple[str, ...]:
        """What is read of a bar; see `fields`."""
        return self._names

    @property
    def symbols(self) -> tuple[str, ...]:
        """The symbols that are open."""
        return tuple(self._symbols)

    @property
    def warmup(self) -> int:
        """How many bars of history each symbol needs for values that no longer depend on where it began."""
        return max((one.warmup for one in self.features), default=0)

    def open(self, history: pl.DataFrame, stored: pl.DataFrame | None = None) -> None:
        """Opens the symbols of these bars anew, which have the columns that `batch.compute` reads.

        `stored`, as in `batch.compute`, has what the sums of cumulative features had come to at a bar of the history.
        """
        sums = [one for one in self.features if one.spec.cumulative] if stored is not None else []
        usable = history.filter(pl.col("close").is_not_null()).sort("symbol", "open_time")
        for (symbol,), bars in usable.group_by("symbol", maintain_order=True):
            listing = bars["listing"][-1] if "listing" in bars.columns else None
            if listing is not None:
                # A listing may come back after another one has had the ticker: only its last stretch counts.
                others = np.flatnonzero(bars["listing"].ne_missing(listing).to_numpy())
                bars = bars[int(others[-1]) + 1 :] if len(others) else bars
            shifts = self._shifts(bars, sums, stored) if stored is not None and sums else {}
            self._begin(str(symbol), bars, listing, shifts)

    def close(self, symbol: str) -> None:
        """Lets go of a symbol: with its next bar it begins anew."""
        gone = self._symbols.pop(symbol, None)
        if gone is not None:
            self._free.append(gone.row)

    def update(self, symbol: str, bar: Mapping[str, object]) -> dict[str, float]:
        """The features at the next bar of a symbol by name; see `values`."""
        return dict(zip(self.columns, self.values(symbol, bar)))

    def values(self, symbol: str, bar: Mapping[str, object]) -> list[float]:
        """The features at the next bar of a symbol in the order of `columns`, NaN where one is not defined.

        `bar` has the columns that `batch.compute` reads by name. A bar without a close changes nothing. A symbol that
        was not opened begins with this bar, and one whose listing changes begins anew.
        """
        shares = float(bar.get("shares") or 1.0)  # type: ignore[arg-type]
        values = {name: of_bar(bar, name, shares) for name in self._names}
        if bar.get("close") is None or bar["close"] != bar["close"]:
            return [NAN] * len(self.columns)
        state = self._at(symbol, bar)
        rows: list[tuple[float, ...] | None] = []
        for inputs in self._inputs:
            row = tuple([values[name] for name in inputs])
            # NaN differs from itself: a feature leaves out a bar that lacks one of its inputs.
            rows.append(None if any(value != value for value in row) else row)
        found: list[float] = []
        for (place, missing), update in zip(self._plan, state.updates):
            given = rows[place]
            found += missing if given is None else update(given)
        if not self._all:
            found = [found[place] for place in self._places]
        for place, shift in state.shifts.items():
            found[place] += shift
        if shares != 1.0:
            found = [
                value if scale == "ratio" else value * shares if scale == "volume" else value / shares
                for value, scale in zip(found, self._scales)
            ]
        return found

    def values_of(self, bars: Sequence[tuple[str, Mapping[str, object]]]) -> list[list[float]]:
        """`values` at the next bars of different symbols, in their order, which takes less than one after another."""
        shares = [float(bar.get("shares") or 1.0) for _, bar in bars]  # type: ignore[arg-type]
        if any(bar.get("close") is None or bar["close"] != bar["close"] for _, bar in bars):
            return [self.values(symbol, bar) for symbol, bar in bars]
        states = [self._at(symbol, bar) for symbol, bar in bars]
        rows = np.array([one.row for one in states])
        values = self._read(bars, shares)
        complete = not np.isnan(values).any()
        given = []
        for rows_read in self._rows:
            block = values[rows_read]
            known = None if complete else np.flatnonzero(~np.isnan(block).any(axis=0))
            given.append((block, known if known is not None and len(known) < len(bars) else None))
        found = np.full((sum(len(missing) for _, missing in self._plan), len(bars)), NAN)
        at = 0
        for (place, missing), bank in zip(self._plan, self._banks):
            own = found[at : at + len(missing)]
            at += len(missing)
            block, known = given[place]
            if known is None:
                own[:] = bank.update(rows, block)
            elif len(known):
                own[:, known] = bank.update(rows[known], np.ascontiguousarray(block[:, known]))
        if not self._all:
            found = found[self._places]
        for i, state in enumerate(states):
            for place, shift in state.shifts.items():
                found[place, i] += shift
        if any(one != 1.0 for one in shares):
            by = np.array(shares)
            for row, scale in zip(found, self._scales):
                if scale != "ratio":
                    row[:] = row * by if scale == "volume" else row / by
        return found.T.tolist()

    def _read(self, bars: Sequence[tuple[str, Mapping[str, object]]], shares: Sequence[float]) -> np.ndarray:
        """The inputs of bars of different symbols: a row an input, NaN where a bar lacks it."""
        if self._as_given and all(one == 1.0 for one in shares):
            # numpy makes NaN of None.
            return np.array([[bar.get(name) for _, bar in bars] for name in self._names], dtype=np.float64)
        return np.array([[of_bar(bar, name, one) for (_, bar), one in zip(bars, shares)] for name in self._names])

    def _at(self, symbol: str, bar: Mapping[str, object]) -> _Symbol:
        """What a symbol's next bar takes on, which begins with it where nothing of its listing is there."""
        state = self._symbols.get(symbol)
        if state is None or state.listing != bar.get("listing"):
            return self._begin(symbol, None, bar.get("listing"))
        return state

    def _begin(
        self, symbol: str, bars: pl.DataFrame | None, listing: object, shifts: Mapping[int, float] | None = None
    ) -> _Symbol:
        """Open a symbol anew, in the row that it has or in a free one."""
        known = self._symbols.get(symbol)
        row = known.row if known is not None else self._free.pop() if self._free else len(self._symbols)
        self._symbols[symbol] = found = _Symbol(row, self._open(row, bars), listing, shifts)
        return found

    def _shifts(self, bars: pl.DataFrame, sums: Sequence[Feature], stored: pl.DataFrame) -> dict[int, float]:
        """For the places of cumulative columns: what is added to a sum since the first bar, before splits."""
        moved = {}
        bars = bars.drop("lookback", strict=False)
        begun, goes_on = compute(bars, sums), compute(bars, sums, stored=stored)
        shares = float(bars["shares"][-1]) if "shares" in bars.columns else 1.0
        for feature in sums:
            for name, scale in zip(feature.columns, feature.scales, strict=True):
                factor = 1.0 if scale == "ratio" else 1.0 / shares if scale == "volume" else shares
                last = (goes_on[name] - begun[name]).drop_nulls()
                moved[self.columns.index(name)] = float(last[-1]) * factor if len(last) else 0.0
        return moved

    def _open(self, row: int, bars: pl.DataFrame | None) -> list[Handle]:
        fields = None if bars is None else Fields(bars, self._names)
        handles = []
        for (_, inputs), bank in zip(self._kernels, self._banks):
            if fields is None:
                history = np.empty((len(inputs), 0))
            else:
                usable, rows = fields.usable(inputs), fields.rows(inputs)
                history = np.ascontiguousarray(rows if usable is None else rows[:, usable])
            handles.append(bank.open(row, history))
        return handles


class _Symbol:
    """The handles of one symbol, as functions, its row in the banks, and the company that they belong to."""

    __slots__ = ("listing", "row", "shifts", "updates")

    def __init__(self, row: int, handles: list[Handle], listing: object, shifts: Mapping[int, float] | None = None):
        self.row = row
        self.shifts = shifts or {}
        self.updates = [one.update for one in handles]
        self.listing = listing
