"""Whose a file's rows are: the names that files use for symbols, and the dataset's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from quantlytic_assets.imports.options import OptionError
from quantlytic_assets.imports.times import StructuralFault

if TYPE_CHECKING:
    from quantlytic_assets.universe.models import Dataset

# Columns that hold symbols, unless --symbol-column names another one. In lower case.
SYMBOL_NAMES = ("symbol", "ticker")
_SHOWN = 20
# What Stooq adds to a ticker: the country of its exchange.
_COUNTRY = ".US"


class SymbolNames:
    """The symbols of a dataset by every name that a file may have for them.

    That is the symbol itself, what vendors call it (`names` in the universe), either of them in other case and with
    other separators, and what `given` says: the text of `--symbol`, which is a symbol, or `OURS=THEIRS,…` for names
    that can't be derived. Raises `OptionError` for a `given` that names a symbol twice.
    """

    def __init__(self, dataset: Dataset, given: str | None = None):
        self.dataset = dataset
        self.known = [one.symbol for one in dataset.symbols]
        self.only: str | None = None
        self.mapped: dict[str, str] = {}
        if given:
            self._take(given)
        exact = {name: one.symbol for one in dataset.symbols for name in (*one.names.values(), one.symbol)}
        alike: dict[str, set[str]] = {}
        for name, ours in exact.items():
            alike.setdefault(_folded(name), set()).add(ours)
        self._exact = exact | self.mapped
        self._alike = {name: min(ours) for name, ours in alike.items() if len(ours) == 1}

    def _take(self, given: str) -> None:
        # Symbols such as EURUSD=X have the sign in them.
        pairs = [self._pair(part.strip()) for part in given.split(",")]
        if given.strip() in self.known or None in pairs:
            self.only = given.strip()
            return
        for ours, theirs in filter(None, pairs):
            if theirs in self.mapped:
                raise OptionError(f"--symbol: {theirs} is given twice, keep one")
            self.mapped[theirs] = ours

    def _pair(self, part: str) -> tuple[str, str] | None:
        """(ours, theirs) of `OURS=THEIRS`; None for a symbol."""
        at = [i for i, sign in enumerate(part) if sign == "=" and part[:i] in self.known and part[i + 1 :]]
        return (part[: at[0]], part[at[0] + 1 :]) if at else None

    def find(self, theirs: str) -> str | None:
        """The dataset's symbol of this name."""
        name = theirs.strip()
        for one in (name, _without_country(name)):
            if found := self._exact.get(one) or self._alike.get(_folded(one)):
                return found
        return None

    def means(self, theirs: str, symbol: str) -> bool:
        """Whether a file's name can be that of `symbol`, which need not be one of the dataset."""
        return self.find(theirs) == symbol or _folded(_without_country(theirs.strip())) == _folded(symbol)

    def of_rows(self, theirs: pl.Series, name: str) -> pl.Series:
        """The dataset's symbol of each row of a column of names, null where the row has none.

        Raises `StructuralFault` naming all that are none of the dataset's.
        """
        text = theirs.cast(pl.String).str.strip_chars()
        text = text.set((text == "").fill_null(False), None)
        found = {one: self.find(one) for one in text.drop_nulls().unique(maintain_order=True)}
        unknown = [one for one, ours in found.items() if ours is None]
        if unknown:
            shown = ", ".join(unknown[:_SHOWN]) + (
                f" and {len(unknown) - _SHOWN} more" if len(unknown) > _SHOWN else ""
            )
            raise StructuralFault(
                f"column {name} has symbols that {self.dataset.name} does not have: {shown}",
                f"add them to the universe under datasets.{self.dataset.name}.symbols, as [{shown}], "
                f"or say which they are with --symbol OURS=THEIRS,…",
            )
        return text.replace_strict(found, default=None, return_dtype=pl.String).alias("symbol")


def _without_country(name: str) -> str:
    return name[: -len(_COUNTRY)] if name.upper().endswith(_COUNTRY) else name


def _folded(name: str) -> str:
    """A name without case and separators: BTC/USD and btc-usd are the same."""
    return "".join(sign for sign in name.upper() if sign.isalnum())
