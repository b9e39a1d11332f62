"""The pages: what a person would rather look at than query, drawn from the lake when somebody opens it. Read-only.

`make_app` gives the ASGI application; names in addresses are looked up in the universe, never used as paths. What is
asked of the lake is in `tables.pages`, how things are drawn in `charts`, where pages are in `links`.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from datetime import date
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import polars as pl
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from quantlytic_assets.calendars.partitions import span_of, with_partition
from quantlytic_assets.learning.registry import ChartNotFound, ModelNotFound
from quantlytic_assets.pages.links import Links
from quantlytic_assets.pages.mlflow_ui import MlflowUi, MlflowUiError
from quantlytic_assets.services.accounts import read_account, read_curves
from quantlytic_assets.tables.pages import LakeRows
from quantlytic_assets.tables.signals import newest_signals
from quantlytic_assets.trading.figures import legend, shown
from quantlytic_assets.universe.models import ModelStrategy
from quantlytic_assets.universe.watch import WatchedUniverse

if TYPE_CHECKING:
    from quantlytic_assets.resources import Resources
    from quantlytic_assets.universe.models import Dataset, Strategy

# Symbols that are drawn on one page; the others are a click away.
_SYMBOLS_ON_PAGE = 6


class Pages:
    """The routes and what they need: the universe as it is now, the lake's rows, the models."""

    def __init__(self, resources: Resources):
        settings = resources.settings
        self.settings = settings
        self.resources = resources
        self.rows = LakeRows(resources.lake)
        self.universe = WatchedUniverse(settings.universe)
        self.mlflow = MlflowUi(resources.models, settings.mlflow_url, settings.directory("logs") / "mlflow.log")
        self.links = Links(live=settings.dashboard)
        # Drawing is one thread's at a time: two would each take a core from the runs.
        self._drawing = threading.Lock()
        self._templates = Environment(
            loader=PackageLoader("quantlytic_assets.pages"), autoescape=True, undefined=StrictUndefined
        )
        self._templates.globals |= {
            "links": self.links,
            "dagster": f"http://127.0.0.1:{settings.port}",
            "shown": shown,
            "legend": legend,
        }

    def routes(self) -> list[Route | Mount]:
        """All addresses."""
        return [
            Route("/", self.home),
            Route("/healthz", lambda _request: Response("ok", media_type="text/plain")),
            Route("/datasets/{dataset}", self.dataset),
            Route("/datasets/{dataset}/coverage.png", self.dataset_coverage),
            Route("/datasets/{dataset}/{key}", self.partition),
            Route("/datasets/{dataset}/{key}/bars.png", self.bars),
            Route("/datasets/{dataset}/{key}/coverage.png", self.coverage),
            Route("/datasets/{dataset}/{key}/features.png", self.features),
            Route("/datasets/{dataset}/{key}/families/{family}.png", self.family),
            Route("/datasets/{dataset}/{key}/labels.png", self.labels),
            Route("/strategies/{strategy}", self.strategy),
            Route("/strategies/{strategy}/equity.png", self.equity),
            Route("/strategies/{strategy}/report", self.report),
            Route("/strategies/{strategy}/models/{step}/evaluation.png", self.evaluation),
            Route("/strategies/{strategy}/{key}/predictions.png", self.predictions),
            Route("/strategies/{strategy}/{key}/trades.png", self.trades),
            Route("/strategies/{strategy}/{key}/candles.png", self.traded_candles),
            Route("/mlflow", self.mlflow_home),
            Route("/mlflow/models/{strategy}/{version}", self.mlflow_model),
            Route("/docs", lambda _request: RedirectResponse(self.links.docs())),
            Mount("/docs", self._docs()),
        ]

    # Pages -----------------------------------------------------------------------------------------------------

    def home(self, request: Request) -> Response:
        """Every dataset and strategy, and what else there is to open."""
        universe = self.universe.now()
        return self._page("home.html", universe=universe, mistakes=self.universe.mistakes)

    def dataset(self, request: Request) -> Response:
        """A dataset's partitions, newest first, with what each lacks."""
        dataset = self._dataset(request)
        sessions = self.rows.sessions(dataset.name)
        partitions: list[dict[str, Any]] = []
        if len(sessions):
            partitions = (
                with_partition(sessions, dataset)
                .group_by("partition")
                .agg(pl.len().alias("sessions"), pl.col("expected", "present", "missing").sum())
                .sort("partition", descending=True)
                .to_dicts()
            )
        return self._page("dataset.html", dataset=dataset, partitions=partitions)

    def partition(self, request: Request) -> Response:
        """Everything of one partition: coverage, bars, features, labels, and what was put into quarantine."""
        # The compilers behind it are loaded by who looks at a partition, not by the server's start.
        from quantlytic_assets.services.features import families

        dataset, key, first, last = self._partition(request)
        symbols = self.rows.symbols(dataset.name, first, last).to_dicts()
        asked = request.query_params.get("symbol")
        names = [row["symbol"] for row in symbols]
        if asked is not None and asked not in names:
            raise HTTPException(404, f"{dataset.name} has no bars of {asked!r} in {key}.")
        return self._page(
            "partition.html",
            dataset=dataset,
            key=key,
            symbols=symbols,
            drawn=[asked] if asked else names[:_SYMBOLS_ON_PAGE],
            quarantined=self.rows.quarantined(dataset.name, first, last).to_dicts(),
            families=families(dataset.features, dataset.plugins),
        )

    def strategy(self, request: Request) -> Response:
        """A strategy's figures beside buy-and-hold, its models, and charts of its newest partitions."""
        strategy = self._strategy(request)
        account = read_account(self.rows, self.universe.now().datasets[strategy.dataset], strategy)
        sessions = self.rows.traded(strategy.name)
        partitions: list[dict[str, Any]] = []
        if len(sessions):
            dataset = self.universe.now().datasets[strategy.dataset]
            partitions = (
                with_partition(sessions, dataset)
                .group_by("partition")
                .agg(pl.len().alias("sessions"), pl.col("fills").sum())
                .sort("partition", descending=True)
                .to_dicts()
            )
        return self._page(
            "strategy.html",
            strategy=strategy,
            figures=account.comparison.to_dicts() if account else [],
            verdict=account.verdict if account else [],
            models=self._models(strategy),
            signals=newest_signals(self.rows, strategy.name).to_dicts(),
            partitions=partitions,
            traded=self._traded(strategy, partitions),
        )

    def report(self, request: Request) -> Response:
        """A strategy's report."""
        account = self._of_account(request, read_account)
        with self._drawing:
            return HTMLResponse(account.report(back=self.links.strategy(account.strategy)))

    # Charts --------------------------------------------------------------------------------------------------

    def dataset_coverage(self, request: Request) -> Response:
        """The heat map of all of a dataset's sessions."""
        from quantlytic_assets.charts.bars import heat_map

        dataset = self._dataset(request)
        return self._chart(
            request, heat_map, self.rows.whole_coverage(dataset.name), nothing=f"no coverage of {dataset.name}"
        )

    def coverage(self, request: Request) -> Response:
        """What there is of a partition: a session by its time, a month by its sessions."""
        from quantlytic_assets.charts.bars import heat_map, timeline

        dataset, key, first, last = self._partition(request)
        rows = self.rows.coverage(dataset.name, first, last)
        nothing = f"no coverage of {dataset.name} {key} yet"
        hours = self.rows.hours(dataset.name, first) if dataset.partition == "session" else None
        if hours is not None:
            return self._chart(request, timeline, rows, *hours, nothing=nothing)
        return self._chart(request, heat_map, rows, nothing=nothing)

    def bars(self, request: Request) -> Response:
        """Candles of a symbol of a partition, the dataset's first one where none is named."""
        from quantlytic_assets.charts.bars import candles

        dataset, key, first, last = self._partition(request)
        symbol = self._symbol(request, dataset)
        rows = self.rows.bars(dataset.name, symbol, first, last)
        return self._chart(request, candles, rows, symbol, nothing=f"no bars of {symbol} in {dataset.name} {key}")

    def features(self, request: Request) -> Response:
        """Indicators of a symbol of a partition, at the longest of the dataset's intervals unless one is named."""
        from quantlytic_assets.charts.features import indicators

        dataset, key, first, last = self._partition(request)
        symbol, interval = self._symbol(request, dataset), self._interval(request, dataset)
        rows = self.rows.indicators(dataset.name, symbol, interval, first, last)
        nothing = f"no features of {symbol} at {interval} in {dataset.name} {key}"
        return self._chart(request, indicators, rows, symbol, interval, first, nothing=nothing)

    def family(self, request: Request) -> Response:
        """What the features of a family are like in a partition, at the longest of the dataset's intervals."""
        from quantlytic_assets.charts.features import family
        from quantlytic_assets.learning.features import scale_free
        from quantlytic_assets.services.features import family_scales

        dataset, key, first, last = self._partition(request)
        name, interval = request.path_params["family"], self._interval(request, dataset)
        scales = family_scales(dataset, name)
        if not scales:
            raise HTTPException(404, f"{dataset.name} has no features of a family {name!r}.")
        what = f"{dataset.name} {key}, {interval}: {name}"
        rows = self.rows.family(dataset.name, list(scales), interval, first, last)
        if len(rows):
            rows = rows.select("forward_return", *(scale_free(column, scale) for column, scale in scales.items()))
        return self._chart(request, family, rows, list(scales), what, nothing=f"no features of {what} yet")

    def labels(self, request: Request) -> Response:
        """How the forward returns of a partition are spread."""
        from quantlytic_assets.charts.features import labels

        dataset, key, first, last = self._partition(request)
        interval = self._interval(request, dataset)
        rows = self.rows.labels(dataset.name, interval, first, last)
        what = f"{dataset.name} {key}, {interval}"
        return self._chart(request, labels, rows, what, nothing=f"no labels of {what} yet")

    def equity(self, request: Request) -> Response:
        """Equity and drawdown of a strategy."""
        from quantlytic_assets.charts.accounts import equity

        curve, held = self._of_account(request, read_curves)
        return self._chart(request, equity, curve, held, self._strategy(request).name, nothing="")

    def predictions(self, request: Request) -> Response:
        """Scores of a strategy in a partition."""
        from quantlytic_assets.charts.accounts import predictions

        strategy, key, first, last = self._traded_partition(request)
        what = f"{strategy.name} {key}"
        rows = self.rows.predictions(strategy.name, first, last)
        return self._chart(request, predictions, rows, what, nothing=f"no predictions of {what}")

    def trades(self, request: Request) -> Response:
        """Equity and trades of a strategy in a partition."""
        from quantlytic_assets.charts.accounts import trades

        strategy, key, first, last = self._traded_partition(request)
        what = f"{strategy.name} {key}"
        curve, fills = (read(strategy.name, first, last) for read in (self.rows.equity, self.rows.fills))
        return self._chart(request, trades, curve, fills, what, nothing=f"no session traded in {what}")

    def traded_candles(self, request: Request) -> Response:
        """Candles of a symbol of a strategy's partition with its fills, the most traded one where none is named."""
        from quantlytic_assets.charts.bars import candles

        strategy, key, first, last = self._traded_partition(request)
        traded = self.rows.traded_symbols(strategy.name, first, last)
        symbol = request.query_params.get("symbol", (traded or strategy.symbols)[0])
        if symbol not in strategy.symbols:
            raise HTTPException(404, f"{strategy.name} has no symbol {symbol!r}.")
        bars, fills = self.rows.traded_bars(strategy.name, strategy.dataset, symbol, strategy.interval, first, last)
        return self._chart(request, candles, bars, symbol, fills, nothing=f"no bars of {symbol} in {key}")

    def evaluation(self, request: Request) -> Response:
        """Calibration, ROC curve and importances of a model, as MLflow keeps them."""
        from quantlytic_assets.charts.figures import nothing_to_draw

        strategy, step = self._strategy(request), request.path_params["step"]
        try:
            if not isinstance(strategy, ModelStrategy):
                raise ModelNotFound(f"strategy {strategy.name} follows a rule alone and has no model")
            if not self.resources.models.exists():
                raise ModelNotFound(f"strategy {strategy.name} has no model yet")
            return Response(self.resources.models.evaluation_chart(strategy, step), media_type="image/png")
        except ChartNotFound as error:
            # The strategy's page has a place for it.
            return Response(nothing_to_draw(str(error)), 404, media_type="image/png")
        except ModelNotFound as error:
            raise HTTPException(404, str(error)) from None

    # MLflow and dbt docs ---------------------------------------------------------------------------------------

    def mlflow_home(self, request: Request) -> Response:
        """To the MLflow UI."""
        return self._to_mlflow("#/models")

    def mlflow_model(self, request: Request) -> Response:
        """To a model version in the MLflow UI."""
        strategy, version = self._strategy(request), request.path_params["version"]
        if not version.isdigit():
            raise HTTPException(404, f"{version!r} is no model version: they are counted from 1.")
        return self._to_mlflow(f"#/models/{strategy.name}/versions/{version}")

    def _to_mlflow(self, fragment: str) -> Response:
        try:
            address = self.mlflow.address()
        except MlflowUiError as error:
            raise HTTPException(503, str(error)) from None
        if address is None:
            # A fragment survives a reload of the same address, so the page asks again until the UI answers.
            return self._page("starting.html", status=202)
        return RedirectResponse(f"{address}/{fragment}")

    def _docs(self) -> Callable:
        directory = self.settings.data / "dbt" / "docs"
        files = StaticFiles(directory=directory, html=True, check_dir=False)

        async def docs(scope: Any, receive: Any, send: Any) -> None:
            if not (directory / "index.html").is_file():
                raise HTTPException(404, "The dbt docs are not built yet. Run: quantlytic docs --no-serve")
            await files(scope, receive, send)

        return docs

    # What addresses name ---------------------------------------------------------------------------------------

    def _dataset(self, request: Request) -> Dataset:
        name, datasets = request.path_params["dataset"], self.universe.now().datasets
        if name not in datasets:
            raise HTTPException(404, f"There is no dataset {name!r}. There are: {', '.join(datasets)}.")
        return datasets[name]

    def _strategy(self, request: Request) -> Strategy:
        name, strategies = request.path_params["strategy"], self.universe.now().strategies
        if name not in strategies:
            raise HTTPException(404, f"There is no strategy {name!r}. There are: {', '.join(strategies) or 'none'}.")
        return strategies[name]

    def _partition(self, request: Request) -> tuple[Dataset, str, date, date]:
        dataset, key = self._dataset(request), request.path_params["key"]
        return dataset, key, *self._span(dataset, key)

    def _traded_partition(self, request: Request) -> tuple[Strategy, str, date, date]:
        strategy, key = self._strategy(request), request.path_params["key"]
        return strategy, key, *self._span(self.universe.now().datasets[strategy.dataset], key)

    def _span(self, dataset: Dataset, key: str) -> tuple[date, date]:
        try:
            return span_of(dataset, key)
        except LookupError as error:
            raise HTTPException(404, f"{error.args[0]}.") from None

    def _symbol(self, request: Request, dataset: Dataset) -> str:
        names = [one.symbol for one in dataset.symbols]
        asked = request.query_params.get("symbol", names[0])
        if asked not in names:
            raise HTTPException(404, f"{dataset.name} has no symbol {asked!r}.")
        return asked

    def _interval(self, request: Request, dataset: Dataset) -> str:
        asked = request.query_params.get("interval", dataset.feature_intervals[-1])
        if asked not in dataset.feature_intervals:
            intervals = ", ".join(dataset.feature_intervals)
            raise HTTPException(404, f"{dataset.name} has no features at {asked!r}, but at {intervals}.")
        return asked

    def _models(self, strategy: Strategy) -> list[dict[str, str]]:
        """The models of a strategy, newest first; none for one that has a rule alone."""
        if not isinstance(strategy, ModelStrategy) or not self.resources.models.exists():
            return []
        return self.resources.models.trained(strategy)

    def _traded(self, strategy: Strategy, partitions: list[dict[str, Any]]) -> list[str]:
        """The symbols that were traded in the newest partition."""
        if not partitions:
            return []
        span = self._span(self.universe.now().datasets[strategy.dataset], partitions[0]["partition"])
        return self.rows.traded_symbols(strategy.name, *span)

    def _of_account(self, request: Request, read: Callable[..., Any]) -> Any:
        """What `read` (of `services.accounts`) finds of a strategy's account."""
        strategy = self._strategy(request)
        found = read(self.rows, self.universe.now().datasets[strategy.dataset], strategy)
        if found is None:
            raise HTTPException(404, f"{strategy.name} has not traded yet. Run: quantlytic backfill {strategy.name}")
        return found

    # Answers ---------------------------------------------------------------------------------------------------

    def _page(self, template: str, status: int = 200, **values: Any) -> HTMLResponse:
        return HTMLResponse(self._templates.get_template(template).render(**values), status)

    def _chart(
        self, request: Request, draw: Callable[..., bytes], rows: pl.DataFrame, *more: Any, nothing: str
    ) -> Response:
        """What `draw` makes of the rows; without rows a chart that says so, for a page has a place for it."""
        from quantlytic_assets.charts.figures import nothing_to_draw, small_figures

        with self._drawing, small_figures() if request.query_params.get("size") == "small" else nullcontext():
            png = draw(rows, *more) if len(rows) else nothing_to_draw(nothing)
        return Response(png, media_type="image/png", headers={"cache-control": "no-cache"})

    def error(self, request: Request, error: Exception) -> Response:
        """Any error as a page that says what to do; details of what was not foreseen are in the log alone."""
        if isinstance(error, HTTPException):
            known = (
                error.detail if error.detail not in ("Not Found", "Method Not Allowed") else "There is no such page."
            )
            return self._page("message.html", error.status_code, title="Not found", text=known)
        log = self.settings.data / "logs" / "pages.log"
        text = f"This page could not be made: {type(error).__name__}. The log says more: {log}"
        return self._page("message.html", 500, title="Something is wrong", text=text)

    @asynccontextmanager
    async def lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        """What was opened or started is closed with the server."""
        yield
        self.mlflow.close()
        self.rows.close()


def make_app(resources: Resources) -> Starlette:
    """The ASGI application of an installation's pages."""
    pages = Pages(resources)
    # A name that a foreign page makes point at 127.0.0.1 is not answered.
    hosts = ["127.0.0.1", "localhost", urlsplit(resources.settings.pages).hostname or "localhost"]
    return Starlette(
        routes=pages.routes(),
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=hosts)],
        exception_handlers={HTTPException: pages.error, Exception: pages.error},
        lifespan=pages.lifespan,
    )
