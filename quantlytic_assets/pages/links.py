"""Addresses of the pages, as metadata in Dagster and the pages themselves name them.

What stands behind an address is in `app`. Nothing here is loaded from the web.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote, urlencode


@dataclass(frozen=True)
class Links:
    """Addresses below `base` (without a slash at the end; empty for links from one page to another).

    `live`: where the dashboard of the API is.
    """

    base: str = ""
    live: str = ""

    def home(self) -> str:
        """The list of datasets and strategies."""
        return f"{self.base}/"

    def dataset(self, dataset: str) -> str:
        """A dataset's page."""
        return f"{self.base}/datasets/{quote(dataset)}"

    def dashboard(self, dataset: str = "", strategy: str = "") -> str:
        """The dashboard with live charts, of a dataset and a strategy of it where they are named."""
        chosen = {name: value for name, value in (("dataset", dataset), ("strategy", strategy)) if value}
        return f"{self.live}/" + (f"#{urlencode(chosen)}" if chosen else "")

    def partition(self, dataset: str, key: str) -> str:
        """The page of a dataset's partition."""
        return f"{self.dataset(dataset)}/{quote(key)}"

    def chart(self, dataset: str, key: str, name: str) -> str:
        """A chart of a dataset's partition: bars, coverage, features or labels."""
        return f"{self.partition(dataset, key)}/{name}.png"

    def family_chart(self, dataset: str, key: str, family: str) -> str:
        """Null share, IC and distribution of a family's features in a partition."""
        return f"{self.partition(dataset, key)}/families/{quote(family)}.png"

    def strategy(self, strategy: str) -> str:
        """A strategy's page."""
        return f"{self.base}/strategies/{quote(strategy)}"

    def report(self, strategy: str) -> str:
        """A strategy's HTML report."""
        return f"{self.strategy(strategy)}/report"

    def account_chart(self, strategy: str) -> str:
        """Equity and drawdown of a strategy over all sessions."""
        return f"{self.strategy(strategy)}/equity.png"

    def trading_chart(self, strategy: str, key: str, name: str, symbol: str | None = None) -> str:
        """A chart of a strategy's partition: predictions, trades, or candles of a symbol with its fills."""
        asked = f"?symbol={quote(symbol, safe='')}" if symbol else ""
        return f"{self.strategy(strategy)}/{quote(key)}/{name}.png{asked}"

    def model_chart(self, strategy: str, step: str) -> str:
        """Calibration, ROC curve and importances of the model of a walk-forward step."""
        return f"{self.strategy(strategy)}/models/{quote(step)}/evaluation.png"

    def model(self, strategy: str, version: str) -> str:
        """A model version in the MLflow UI, which is started where none runs."""
        return f"{self.base}/mlflow/models/{quote(strategy)}/{quote(version)}"

    def mlflow(self) -> str:
        """The MLflow UI."""
        return f"{self.base}/mlflow"

    def docs(self) -> str:
        """The dbt docs."""
        return f"{self.base}/docs/"
