"""What was told of alerts on thresholds: kept so that nobody is told twice, whatever is restarted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from quantlytic_assets.storage.state import ALERT_STATES as _states
from quantlytic_assets.storage.state import open_state
from quantlytic_assets.thresholds.standing import Standing

_KEPT = ("through", "holds", "told", "told_at")


class AlertStates:
    """Standings by alert, as it is declared, and symbol or strategy."""

    def __init__(self, url: str):
        self.engine = open_state(url)

    def read(self, alert: str) -> dict[str, Standing]:
        """The standings of an alert, by symbol."""
        query = sa.select(_states).where(_states.c.alert == alert)
        with self.engine.connect() as connection:
            return {
                row["symbol"]: Standing(*(row[name] for name in _KEPT)) for row in connection.execute(query).mappings()
            }

    def write(self, alert: str, standings: Mapping[str, Standing]) -> None:
        """Keep the standings of symbols in place of those that are there."""
        rows = [
            {"alert": alert, "symbol": symbol, **{name: getattr(one, name) for name in _KEPT}}
            for symbol, one in standings.items()
        ]
        if not rows:
            return
        insert = (postgresql if self.engine.dialect.name == "postgresql" else sqlite).insert(_states)
        replaced = {name: insert.excluded[name] for name in _KEPT}
        statement = insert.on_conflict_do_update(index_elements=["alert", "symbol"], set_=replaced)
        with self.engine.begin() as connection:
            connection.execute(statement, rows)

    def keep_only(self, alerts: Iterable[str]) -> None:
        """Forget alerts that are not declared any more."""
        with self.engine.begin() as connection:
            connection.execute(sa.delete(_states).where(_states.c.alert.not_in(list(alerts))))
