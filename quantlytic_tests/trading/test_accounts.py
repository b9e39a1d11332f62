import re
from datetime import date

import pandas as pd
import polars as pl
import pytest

from quantlytic_assets.charts.accounts import equity as equity_chart
from quantlytic_assets.charts.report import report_page, write_report
from quantlytic_assets.trading.paper import trade
from quantlytic_assets.trading.performance import (
    benchmark_curve,
    comparison,
    periods_per_year,
    session_returns,
    statistics,
)
from quantlytic_assets.trading.portfolio import equity_curve, positions
from quantlytic_assets.universe.models import Costs
from quantlytic_tests.trading.frames import daily, ledger_in, predict, real_case, strategy

DAYS = [date(2015, 3, 2), date(2015, 3, 3), date(2015, 3, 4), date(2015, 3, 5)]

# AAA rises and is bought more cheaply at first; BBB has no bar on the third day.
BARS = daily(
    [
        ("AAA", DAYS[0], 49.0, 50.0),
        ("BBB", DAYS[0], 99.0, 100.0),
        ("AAA", DAYS[1], 52.0, 62.5),
        ("BBB", DAYS[1], 101.0, 102.0),
        ("AAA", DAYS[2], 60.0, 61.0),
        ("AAA", DAYS[3], 58.0, 57.0),
        ("BBB", DAYS[3], 104.0, 110.0),
    ]
)
#             Mon A B   Tue A B  Wed A  Thu A B
UPS = [1, 1, 1, 0, 0, 1, 0]

NO_FILLS = pl.DataFrame(schema=dict.fromkeys(("price", "quantity", "commission", "slippage"), pl.Float64))


def account(tmp_path, costs=Costs(10.0, 20.0)):
    mine = strategy(costs=costs)
    ledger = ledger_in(tmp_path)
    trade(mine, predict(BARS, UPS), BARS, ledger, DAYS)
    fills = ledger.fills(mine.name)
    held = positions(mine.name, fills, BARS, DAYS)
    return ledger, fills, held, equity_curve(held, fills, mine.capital, DAYS)


def test_a_small_account_by_hand(tmp_path):
    ledger, fills, held, curve = account(tmp_path)
    # 10,000 in two shares of 5,000. Monday: 100 AAA at 50, 50 BBB at 100. Tuesday: 80 AAA at 62.5, so sell 20; BBB
    # goes.
    # Wednesday: AAA goes. Thursday: AAA again, open.
    assert fills.select("session", "symbol", "side", "quantity", "fill_session").rows() == [
        (DAYS[0], "AAA", "buy", 100.0, DAYS[1]),
        (DAYS[0], "BBB", "buy", 50.0, DAYS[1]),
        (DAYS[1], "AAA", "sell", 20.0, DAYS[2]),
        (DAYS[1], "BBB", "sell", 50.0, DAYS[3]),
        (DAYS[2], "AAA", "sell", 80.0, DAYS[3]),
    ]
    prices = [52 * 1.002, 101 * 1.002, 60 * 0.998, 104 * 0.998, 58 * 0.998]
    assert fills["price"].to_list() == pytest.approx(prices)
    commissions = [quantity * price * 0.001 for quantity, price in zip([100, 50, 20, 50, 80], prices, strict=True)]
    assert fills["commission"].to_list() == pytest.approx(commissions)
    assert ledger.open_orders("momentum_1d").select("symbol", "side", "quantity").rows() == [("AAA", "buy", 87.0)]

    assert held.drop("strategy").rows() == [
        (DAYS[1], "AAA", 100.0, pytest.approx(prices[0]), 62.5, pytest.approx(6250.0)),
        (DAYS[1], "BBB", 50.0, pytest.approx(prices[1]), 102.0, pytest.approx(5100.0)),
        (DAYS[2], "AAA", 80.0, pytest.approx(prices[0]), 61.0, pytest.approx(4880.0)),
        (DAYS[2], "BBB", 50.0, pytest.approx(prices[1]), 102.0, pytest.approx(5100.0)),
    ]
    after_buying = 10_000 - 100 * prices[0] - 50 * prices[1] - commissions[0] - commissions[1]
    after_trimming = after_buying + 20 * prices[2] - commissions[2]
    after_selling = after_trimming + 50 * prices[3] + 80 * prices[4] - commissions[3] - commissions[4]
    slippages = [100 * 0.104, 50 * 0.202, 20 * 0.12, 50 * 0.208, 80 * 0.116]
    assert curve["cash"].to_list() == pytest.approx([10_000, after_buying, after_trimming, after_selling])
    assert curve["gross_exposure"].to_list() == pytest.approx([0, 11_350, 9_980, 0])
    assert curve["equity"].to_list() == pytest.approx(
        [10_000, after_buying + 11_350, after_trimming + 9_980, after_selling]
    )
    assert curve["costs_to_date"].to_list() == pytest.approx(
        [0, sum(commissions[:2] + slippages[:2]), sum(commissions[:3] + slippages[:3]), sum(commissions + slippages)]
    )


def test_costs_are_all_that_separates_it_from_a_free_account(tmp_path):
    (tmp_path / "free").mkdir()
    _, fills, _, paid = account(tmp_path)
    _, _, _, free = account(tmp_path / "free", Costs(0.0, 0.0))
    assert (free["equity"] - paid["equity"]).to_list() == pytest.approx(paid["costs_to_date"].to_list())
    assert free["costs_to_date"].sum() == 0


def test_a_sale_keeps_the_average_price_and_a_new_start_forgets_it():
    days = DAYS + [date(2015, 3, 6)]
    trades = [("buy", 10.0, 10.0), ("buy", 30.0, 20.0), ("sell", 20.0, 99.0), ("sell", 20.0, 99.0), ("buy", 5.0, 40.0)]
    fills = pl.DataFrame(
        {
            "fill_session": days,
            "symbol": ["AAA"] * 5,
            "side": [side for side, _, _ in trades],
            "quantity": [quantity for _, quantity, _ in trades],
            "price": [price for _, _, price in trades],
        }
    )
    bars = daily([("AAA", days[0], 1.0, 30.0)])
    held = positions("momentum_1d", fills, bars, days)
    assert held.select("session", "quantity", "average_price").rows() == [
        (days[0], 10.0, 10.0),
        (days[1], 40.0, 17.5),
        (days[2], 20.0, 17.5),
        (days[4], 5.0, 40.0),
    ]
    assert held["close"].to_list() == [30.0] * 4


def test_equity_of_real_trading_agrees_with_a_plain_reckoning(tmp_path):
    mine, predictions, bars, sessions = real_case()
    ledger = ledger_in(tmp_path)
    trade(mine, predictions, bars, ledger, sessions)
    fills = ledger.fills(mine.name)
    held = positions(mine.name, fills, bars, sessions)
    curve = equity_curve(held, fills, mine.capital, sessions)
    close = {(row["symbol"], row["session"]): row["close"] for row in bars.iter_rows(named=True)}
    for session, equity in curve.select("session", "equity").rows()[::37]:
        cash, units = mine.capital, {}
        for row in fills.filter(pl.col("fill_session") <= session).iter_rows(named=True):
            sign = 1 if row["side"] == "buy" else -1
            units[row["symbol"]] = units.get(row["symbol"], 0) + sign * row["quantity"]
            cash -= sign * row["quantity"] * row["price"] + row["commission"]
        assert min(units.values(), default=0) >= 0
        assert equity == pytest.approx(cash + sum(n * close[symbol, session] for symbol, n in units.items()))
    decided = predictions["available_at"].min()
    assert benchmark_curve(mine, bars, decided, sessions)[1]["fill_session"].unique().to_list() == [sessions[1]]


def test_buy_and_hold_pays_the_same_costs_and_never_spends_more_than_there_is():
    mine = strategy()
    curve, fills = benchmark_curve(mine, BARS, BARS["available_at"].min(), DAYS)
    # Tuesday's opens, 52 and 101, with slippage and commission: 5,000 buy 95 and 49.
    assert fills.select("symbol", "quantity", "fill_session").rows() == [("AAA", 95.0, DAYS[1]), ("BBB", 49.0, DAYS[1])]
    prices = [52 * 1.002, 101 * 1.002]
    cash = 10_000 - 1.001 * (95 * prices[0] + 49 * prices[1])
    assert curve["cash"].to_list() == pytest.approx([10_000, cash, cash, cash])
    assert cash > 0
    assert curve["equity"][-1] == pytest.approx(cash + 95 * 57 + 49 * 110)


def test_a_year_is_252_exchange_sessions_or_365_days():
    assert periods_per_year(real_case()[3]) == 252
    assert periods_per_year(pl.date_range(date(2025, 5, 10), date(2025, 5, 31), eager=True)) == 365


def test_statistics_of_a_small_curve_by_hand():
    curve = pl.DataFrame({"session": DAYS, "equity": [100.0, 110.0, 88.0, 99.0]})
    fills = pl.DataFrame([[10.0, 5.0, 0.5, 0.1], [10.0, 3.0, 0.3, 0.1]], NO_FILLS.schema, orient="row")
    assert session_returns(curve, 100.0)["return"].to_list() == pytest.approx([0.0, 0.1, -0.2, 0.125])
    figures = statistics(curve, fills, 100.0, 252)
    mean = 0.025 / 4
    spread = (sum((r - mean) ** 2 for r in (0.0, 0.1, -0.2, 0.125)) / 3) ** 0.5
    assert figures["total_return"] == pytest.approx(-0.01)
    assert figures["cagr"] == pytest.approx(0.99 ** (252 / 4) - 1)
    assert figures["sharpe"] == pytest.approx(mean / spread * 252**0.5)
    assert figures["sortino"] == pytest.approx(mean / (0.04 / 4) ** 0.5 * 252**0.5)
    assert figures["max_drawdown"] == pytest.approx(-0.2)
    assert figures["turnover"] == pytest.approx(80 / 2 / 100 / (4 / 252))
    assert figures["total_costs"] == pytest.approx(1.0)
    assert figures["trades"] == 2


def test_a_loss_in_the_first_session_counts_as_a_drawdown():
    curve = pl.DataFrame({"session": DAYS[:2], "equity": [90.0, 95.0]})
    assert statistics(curve, NO_FILLS, 100.0, 252)["max_drawdown"] == pytest.approx(-0.1)


@pytest.mark.parametrize("equity", [[100.0] * 4, [100.0, 50.0, -1.0, 5.0], [], [101.0]])
def test_what_is_not_defined_is_none_and_nothing_breaks(equity, tmp_path):
    curve = pl.DataFrame({"session": DAYS[: len(equity)], "equity": equity}, {"session": pl.Date, "equity": pl.Float64})
    figures = statistics(curve, NO_FILLS, 100.0, 252)
    assert figures["sharpe"] is None
    page = report_page("momentum_1d", curve, curve, comparison(figures, figures), 100.0)
    assert "too little has happened" in page


def test_the_report_is_one_file_that_fetches_nothing_and_agrees_with_the_figures(tmp_path, monkeypatch):
    import socket
    import webbrowser

    def reject(*_, **__):
        raise AssertionError("no network, no browser")

    monkeypatch.setattr(socket.socket, "connect", reject)
    monkeypatch.setattr(webbrowser, "open", reject)
    mine, predictions, bars, sessions = real_case()
    ledger = ledger_in(tmp_path)
    trade(mine, predictions, bars, ledger, sessions)
    fills = ledger.fills(mine.name)
    curve = equity_curve(positions(mine.name, fills, bars, sessions), fills, mine.capital, sessions)
    benchmark, held_fills = benchmark_curve(mine, bars, predictions["available_at"].min(), sessions)
    figures = comparison(
        statistics(curve, fills, mine.capital, 252), statistics(benchmark, held_fills, mine.capital, 252)
    )
    path = tmp_path / "reports" / "momentum_1d.html"
    write_report(path, report_page("momentum_1d <b>", curve, benchmark, figures, mine.capital, "/strategies/x"))
    page = path.read_text()
    assert [p.name for p in path.parent.iterdir()] == ["momentum_1d.html"]
    assert not re.search(r"""<(script|link|iframe)\b|\bsrc=["']?(http|//)|@import|url\(["']?(http|//)|onload""", page)
    assert "momentum_1d &lt;b&gt;" in page and "Buy and hold" in page
    pairs = (("sharpe", "Sharpe", 1), ("sortino", "Sortino", 1), ("max_drawdown", "Max Drawdown", 100))
    for ours, theirs, scale in pairs:
        _, strategy_figure, held_figure = figures.row(by_predicate=pl.col("statistic") == ours)
        shown = shown_in(page, theirs)
        assert shown == pytest.approx([held_figure * scale, strategy_figure * scale], abs=0.006)
    # Two charts of different accounts are different charts.
    charts = equity_chart(curve, benchmark, "momentum_1d"), equity_chart(benchmark, curve, "momentum_1d")
    assert charts[0].startswith(b"\x89PNG") and charts[0] != charts[1]
    # The way back to the strategy's page.
    assert page.count('<a href="/strategies/x">') == 1


def test_statistics_are_those_of_quantstats(tmp_path):
    from quantstats import stats

    mine, predictions, bars, sessions = real_case()
    ledger = ledger_in(tmp_path)
    trade(mine, predictions, bars, ledger, sessions)
    fills = ledger.fills(mine.name)
    curve = equity_curve(positions(mine.name, fills, bars, sessions), fills, mine.capital, sessions)
    figures = statistics(curve, fills, mine.capital, 252)
    returns = session_returns(curve, mine.capital)
    series = pd.Series(returns["return"].to_list(), index=pd.DatetimeIndex(returns["session"].to_list()))
    assert figures["cagr"] == pytest.approx(stats.cagr(series, periods=252), rel=1e-9)
    assert figures["sharpe"] == pytest.approx(stats.sharpe(series, periods=252), rel=1e-9)
    assert figures["sortino"] == pytest.approx(stats.sortino(series, periods=252), rel=1e-9)
    assert figures["max_drawdown"] == pytest.approx(stats.max_drawdown(series), rel=1e-9)


def shown_in(page: str, metric: str) -> list[float]:
    """The figures of a row of the report's table: buy and hold, strategy."""
    row = re.search(rf"<td>{metric}\s*</td>((\s*<td>[^<]*</td>){{2}})", page)
    return [float(cell.strip("%")) for cell in re.findall(r"<td>([^<]*)</td>", row.group(1))]
