"""The HTML report of a strategy: quantstats' tearsheet, or a plain page where there is too little for one.

It is one self-contained page that needs no network to be read. It is made when somebody opens it, or at the end of a
command; runs make none, for it loads matplotlib.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from base64 import b64encode
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from quantlytic_assets.charts.accounts import equity
from quantlytic_assets.trading.figures import shown
from quantlytic_assets.trading.performance import periods_per_year, session_returns

if TYPE_CHECKING:
    import pandas as pd

# The tearsheet's rolling and monthly parts need some history to be drawn at all.
_SESSIONS_FOR_TEARSHEET = 60


def report_page(
    title: str,
    curve: pl.DataFrame,
    benchmark: pl.DataFrame,
    figures: pl.DataFrame,
    capital: float,
    back: str | None = None,
) -> str:
    """A page that compares the strategy with buy and hold.

    curve, benchmark: portfolio.EQUITY_SCHEMA over the same sessions. figures: `performance.comparison`. It is
    quantstats' tearsheet; with less than 60 sessions, with no trade or after a ruin there is nothing to draw one from,
    and the page holds the figures and the chart. back: the address of the strategy's page, linked at the top.
    """
    drawable = [c["equity"].n_unique() > 1 and c["equity"].min() > 0 for c in (curve, benchmark)]
    if len(curve) >= _SESSIONS_FOR_TEARSHEET and all(drawable):
        page = _tearsheet(title, curve, benchmark, capital)
    else:
        page = _plain_page(title, curve, benchmark, figures)
    if back is None:
        return page
    link = f'<p style="font:13px sans-serif;margin:8px"><a href="{escape(back)}">{escape(title)}: all pages</a></p>'
    return page.replace("<body>", f"<body>{link}", 1)


def write_report(path: Path, page: str) -> None:
    """Write the page, in place of an older one at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".part")
    draft.write_text(page, encoding="utf-8")
    draft.replace(path)


def _tearsheet(title: str, curve: pl.DataFrame, benchmark: pl.DataFrame, capital: float) -> str:
    _import_quantstats()
    import quantstats.reports

    with tempfile.TemporaryDirectory(prefix="quantlytic-report-") as scratch, warnings.catch_warnings():
        # Its plots divide by empty months and ask for fonts that a server has not got.
        warnings.simplefilter("ignore")
        output = Path(scratch) / "tearsheet.html"
        quantstats.reports.html(
            _as_pandas(session_returns(curve, capital)),
            benchmark=_as_pandas(session_returns(benchmark, capital)),
            title=escape(title),
            output=str(output),
            periods_per_year=periods_per_year(curve["session"]),
            # Matching would cut off the time before the first trade and so show another return than ours.
            match_dates=False,
            strategy_title="Strategy",
            benchmark_title="Buy and hold",
        )
        page = output.read_text(encoding="utf-8")
    # The template fetches an icon from the network and calls a script it does not bring.
    page = "\n".join(line for line in page.splitlines() if 'rel="shortcut icon"' not in line)
    return page.replace('<body onload="save()">', "<body>")


def _plain_page(title: str, curve: pl.DataFrame, benchmark: pl.DataFrame, figures: pl.DataFrame) -> str:
    rows = "".join(
        f"<tr><td>{escape(name)}</td>" + "".join(f"<td>{shown(name, value)}</td>" for value in values) + "</tr>"
        for name, *values in figures.rows()
    )
    chart = ""
    if len(curve):
        encoded = b64encode(equity(curve, benchmark, title)).decode()
        chart = f'<img alt="equity and drawdown" src="data:image/png;base64,{encoded}">'
    return (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title><style>'
        "body{font:14px Arial,sans-serif;max-width:60em;margin:2em auto}td,th{padding:.2em 1em;text-align:right}"
        f"img{{width:100%}}</style></head><body><h1>{escape(title)}</h1>"
        f"<p>{len(curve)} sessions: too little has happened for a full report.</p><table><tr><th></th><th>Strategy</th>"
        f"<th>Buy and hold</th></tr>{rows}</table>{chart}</body></html>"
    )


def _import_quantstats() -> None:
    """Loads quantstats without a display and without its notes about fonts."""
    import matplotlib

    matplotlib.use("Agg")
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
    import quantstats  # noqa: F401


def _as_pandas(returns: pl.DataFrame) -> pd.Series:
    import pandas as pd

    index = pd.DatetimeIndex(returns["session"].to_numpy().astype("datetime64[ns]"), name="Date")
    return pd.Series(returns["return"].to_numpy(), index=index, name="return")
