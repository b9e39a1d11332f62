# Reads the range and what surrounds it, hands it to quantlytic_assets.market_data.indicators, and returns the rows.
# The tables it reads are made by the model's pre-hooks: see macros/surroundings.sql and macros/indicator_inputs.sql.

from quantlytic_assets.market_data.indicators import COLUMNS, STATE, compute

KEPT = ["dataset", "symbol", "session", "interval", "open_time", "available_at", "close", *COLUMNS]
# Bars computed at a time: bounds the memory of a full rebuild, whatever the number of symbols.
CHUNK = 300_000


def chunks(counts):
    """Lists of symbols with about CHUNK bars each, from (symbol, bars) rows."""
    symbols, bars = [], 0
    for symbol, count in counts:
        if symbols and bars + count > CHUNK:
            yield symbols
            symbols, bars = [], 0
        symbols.append(symbol)
        bars += count
    if symbols:
        yield symbols


def model(dbt, session):
    dbt.ref("bars")
    counts = session.execute("select symbol, count(*) from bars_to_compute group by symbol order by symbol").fetchall()

    def frames():
        for symbols in chunks(counts):
            # Written into the statement: DuckDB imports pandas, a whole second, to look at a parameter.
            chosen = ", ".join("'" + symbol.replace("'", "''") + "'" for symbol in symbols)
            bars = session.execute(f"select * from bars_to_compute where symbol in ({chosen})").pl()
            state = session.execute(
                f"""select symbol, "interval", open_time, {", ".join(STATE)} from last_indicators
                where symbol in ({chosen})"""
            ).pl()
            yield compute(bars, state).select(KEPT)

    return frames()
