"""`quantlytic …`: arguments, exit codes and where output goes. What a command does is in `commands`.

Exit codes: 0 done, 1 failed, 2 wrong usage or configuration. A traceback is shown only with `--debug`.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from quantlytic_assets.commands.completion import (
    complete_dataset,
    complete_dataset_or_strategy,
    complete_strategy,
)
from quantlytic_assets.commands.installation import CommandError, Installation, UsageError
from quantlytic_assets.storage.migrations.layout import LayoutError
from quantlytic_assets.universe.models import UniverseError

app = typer.Typer(
    name="quantlytic",
    help="Market data to paper trades, as one Dagster asset graph.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)
# Piped output is for files and programs: a table is as wide as its cells are, and nothing of it is folded or cut.
out = Console(file=sys.stdout, width=None if sys.stdout.isatty() else 1_000_000)
err = Console(stderr=True)
_installation = Installation()

_Day = Annotated[datetime | None, typer.Option("--from", formats=["%Y-%m-%d"], help="First session, inclusive.")]
_LastDay = Annotated[datetime | None, typer.Option("--to", formats=["%Y-%m-%d"], help="Last session, inclusive.")]
_MINUTES = ["%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%SZ"]
_Json = Annotated[bool, typer.Option("--json", help="JSON on standard output and nothing else.")]
_WithApi = Annotated[bool, typer.Option("--api/--no-api", help="Serve the API and its dashboard too.")]


class LiveSource(StrEnum):
    """What the live path reads of the bus; auto: ticks where there are any."""

    AUTO = "auto"
    TICKS = "ticks"
    BARS = "bars"


class TableFormat(StrEnum):
    """How `sql` prints rows."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"


class Label(StrEnum):
    """What a file's times mark."""

    START = "start"
    END = "end"


class Adjustment(StrEnum):
    """What a file's prices are adjusted for."""

    NONE = "none"
    SPLIT = "split"


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"quantlytic {version('quantlytic')}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    """Options that stand before the command; `main` reads them itself."""


@app.command()
def demo(
    serve: Annotated[bool, typer.Option("--serve/--no-serve", help="Open the UI when all is built.")] = True,
    with_api: _WithApi = True,
) -> None:
    """Materialize everything in the universe, print what came of it, then serve the UI."""
    from quantlytic_assets.commands.demo import run_demo

    run_demo(_installation, out)
    if serve:
        from quantlytic_assets.commands.serve import run_servers

        run_servers(_installation, out, with_api)


@app.command()
def serve(with_api: _WithApi = True) -> None:
    """The Dagster UI, its daemon, the pages and the API with its dashboard, on 127.0.0.1."""
    from quantlytic_assets.commands.serve import run_servers

    run_servers(_installation, out, with_api)


@app.command("import")
def import_files(
    paths: Annotated[
        list[str], typer.Argument(metavar="PATH...", help="Files, folders, or patterns such as bars/{symbol}.csv.")
    ],
    dataset: Annotated[str, typer.Option(help="Dataset of the universe.", autocompletion=complete_dataset)],
    symbol: Annotated[
        str | None, typer.Option(help="Symbol that the bars are of, or OURS=THEIRS,… for what the file calls ours.")
    ] = None,
    symbol_column: Annotated[
        str | None, typer.Option(help="Column that says whose each row is, for a file of several symbols.")
    ] = None,
    columns: Annotated[str, typer.Option(help="ours=theirs, comma-separated: time=tag,open=o,…")] = "",
    time_zone: Annotated[str | None, typer.Option(help="Zone of naive times; default UTC.")] = None,
    label: Annotated[Label, typer.Option(help="What the time marks.")] = Label.START,
    adjustment: Annotated[Adjustment, typer.Option(help="What prices are adjusted for.")] = Adjustment.NONE,
    decimal: Annotated[str, typer.Option(help="Mark before decimals: . or ,")] = ".",
    date_format: Annotated[
        str | None, typer.Option(help="How times are written, as %d/%m/%Y %H:%M; default: found out.")
    ] = None,
    no_header: Annotated[
        bool, typer.Option("--no-header", help="No line of names: time,open,high,low,close,volume by position.")
    ] = False,
) -> None:
    """Read files of bars (CSV, Excel, Parquet, Feather, JSON; told apart by content), publish them and land them."""
    from quantlytic_assets.commands.importing import run_import
    from quantlytic_assets.imports.options import ImportOptions, OptionError, parse_columns

    try:
        options = ImportOptions(
            columns=parse_columns(columns) if columns else {},
            time_zone=time_zone,
            label=label.value,
            adjustment=adjustment.value,
            symbol_column=symbol_column,
            decimal=decimal,
            date_format=date_format,
            header=not no_header,
        )
    except OptionError as error:
        raise UsageError(str(error)) from error
    run_import(_installation, out, paths, dataset, symbol, options)


@app.command()
def unimport(
    what: Annotated[
        list[str] | None,
        typer.Argument(metavar="PATH|OBJECT...", help="Files that were imported, ids of imports, or archive objects."),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(help="Default: every dataset the file was imported into.", autocompletion=complete_dataset),
    ] = None,
    symbol: Annotated[str | None, typer.Option(help="Only rows of this symbol.")] = None,
    first: _Day = None,
    last: _LastDay = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Take a wrong import back: its rows count no more, its objects stay. Importing the file again brings it back."""
    from quantlytic_assets.commands.unimport import run_unimport

    def confirm(question: str) -> bool:
        if yes:
            return True
        try:
            return typer.confirm(question)
        except typer.Abort:
            raise UsageError("nothing was taken back; where nobody can answer, add --yes") from None

    from_, to = first.date() if first else None, last.date() if last else None
    run_unimport(_installation, out, what or [], dataset, symbol, from_, to, confirm)


@app.command("import-actions")
def import_actions(
    path: Annotated[Path, typer.Argument(help="CSV file: symbol, date, kind, value and perhaps known.")],
    dataset: Annotated[
        str | None,
        typer.Option(help="Default: the one dataset that has the symbols.", autocompletion=complete_dataset),
    ] = None,
) -> None:
    """Read a file of splits, dividends and renames; they win over what vendors say."""
    from quantlytic_assets.commands.import_actions import run_import_actions

    run_import_actions(_installation, out, path, dataset)


@app.command()
def backfill(
    name: Annotated[str, typer.Argument(metavar="DATASET|STRATEGY", autocompletion=complete_dataset_or_strategy)],
    first: _Day = None,
    last: _LastDay = None,
    symbols: Annotated[str, typer.Option(help="Comma-separated; default all of the dataset.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be asked, and ask nobody.")] = False,
    restart: Annotated[bool, typer.Option("--restart", help="Trade a simulated strategy anew, from scratch.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Ask vendors again for everything, known holes and archived bars too.")
    ] = False,
) -> None:
    """Make what is missing or out of date, raw bars to features and the strategies on them; or sessions anew."""
    from quantlytic_assets.commands.backfilling import run_backfill

    wanted = [part.strip() for part in symbols.split(",") if part.strip()]
    run_backfill(
        _installation,
        out,
        name,
        first.date() if first else None,
        last.date() if last else None,
        wanted,
        dry_run,
        restart,
        force,
    )


@app.command()
def backtest(
    strategy: Annotated[str, typer.Argument(help="A strategy.", autocompletion=complete_strategy)],
    first: _Day = None,
    last: _LastDay = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PATH=VALUE", help="Another value, such as rule.ma_cross.fast=10; repeatable."),
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Where to write the HTML report.")] = None,
    as_json: _Json = False,
) -> None:
    """Trade a strategy on history with the engine that trades it, and review the result."""
    from quantlytic_assets.commands.backtest import show_backtest

    from_, to = first.date() if first else None, last.date() if last else None
    show_backtest(_installation, out, strategy, from_, to, settings or [], report, as_json)


@app.command()
def optimize(
    strategy: Annotated[str, typer.Argument(help="A strategy.", autocompletion=complete_strategy)],
    axes: Annotated[
        list[str],
        typer.Option("--grid", metavar="PATH=FIRST:LAST:STEP", help="Values to try, also PATH=1,2,5; repeatable."),
    ],
    first: _Day = None,
    last: _LastDay = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="PATH=VALUE", help="Another value for all points; repeatable.")
    ] = None,
    trials: Annotated[
        int | None, typer.Option(min=1, help="Try so many points, chosen by Optuna; default all of the grid.")
    ] = None,
    walk_forward: Annotated[
        bool, typer.Option("--walk-forward", help="Also choose anew as time goes on, from the past alone.")
    ] = False,
    workers: Annotated[int | None, typer.Option(min=1, help="Points at a time; default one a core.")] = None,
    report: Annotated[Path | None, typer.Option(help="Where to write the HTML report.")] = None,
    as_json: _Json = False,
) -> None:
    """Try a grid of settings, and say what the best one is worth out of sample."""
    from quantlytic_assets.commands.backtest import show_search

    from_, to = first.date() if first else None, last.date() if last else None
    show_search(
        _installation, out, strategy, axes, from_, to, settings or [], walk_forward, workers, report, as_json, trials
    )


@app.command()
def replay(
    dataset: Annotated[str, typer.Argument(autocompletion=complete_dataset)],
    speed: Annotated[float, typer.Option(min=0.001, help="1 is real time; 60 plays an hour in a minute.")] = 60.0,
    first: _Day = None,
    last: _LastDay = None,
) -> None:
    """Play sample or archived bars onto the bus as a live feed would."""
    from quantlytic_assets.commands.replay import run_replay

    run_replay(_installation, out, dataset, speed, first.date() if first else None, last.date() if last else None)


@app.command()
def feed(
    market: Annotated[
        str, typer.Argument(help="A dataset with a `feed:` in the universe.", autocompletion=complete_dataset)
    ],
) -> None:
    """Take a live feed's trades and bars onto the bus until interrupted."""
    from quantlytic_assets.commands.feed import run_feed

    run_feed(_installation, out, market)


@app.command()
def metrics(
    port: Annotated[int | None, typer.Option(help="Default: QUANTLYTIC_METRICS_PORT, else 9464.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
) -> None:
    """Serve figures for Prometheus until interrupted."""
    from quantlytic_assets.commands.metrics import run_metrics

    run_metrics(_installation, out, port or _installation.settings.metrics_port, host)


@app.command()
def pages(
    port: Annotated[int | None, typer.Option(help="Default: QUANTLYTIC_PAGES_PORT, else 3002.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
) -> None:
    """Serve charts, reports and dbt docs as pages until interrupted; `serve` does so too."""
    from quantlytic_assets.commands.pages import run_pages

    run_pages(_installation, out, port or _installation.settings.pages_port, host)


@app.command()
def publish(
    dataset: Annotated[str | None, typer.Argument(help="Default: all.", autocompletion=complete_dataset)] = None,
) -> None:
    """Fill the hot store, from which the API answers, from the lake; runs do so by themselves."""
    from quantlytic_assets.commands.publishing import run_publish

    run_publish(_installation, out, dataset)


@app.command()
def api(
    port: Annotated[
        int | None, typer.Option(help="Default: QUANTLYTIC_API_PORT, else 5000 after the UI's: 8000.")
    ] = None,
) -> None:
    """Serve REST and websocket from the hot store until interrupted; QUANTLYTIC_API_HOST says on which address."""
    from quantlytic_assets.commands.api import run_api

    run_api(_installation, out, port or _installation.settings.api_port)


@app.command("bench-queries")
def bench_queries(
    requests: Annotated[int, typer.Option(min=1, max=1_000_000, help="How many questions.")] = 2000,
    connections: Annotated[int, typer.Option(min=1, max=256, help="How many are asked at once.")] = 8,
    key: Annotated[str | None, typer.Option(envvar="QUANTLYTIC_API_KEY", help="A key, where one is needed.")] = None,
    as_json: _Json = False,
) -> None:
    """Ask the API what users ask, and print how long each route took; starts the API where none runs."""
    from quantlytic_assets.commands.bench_queries import run_bench

    run_bench(_installation, out, requests, connections, key, as_json)


keys = typer.Typer(name="keys", help="Keys of the API.", no_args_is_help=True)
app.add_typer(keys)


@keys.command("add")
def keys_add(
    name: Annotated[str, typer.Argument(help="Whose it is, or what for.")],
    scopes: Annotated[str, typer.Option(help="By comma: market:read, trading:read, admin.")] = "market:read",
    days: Annotated[int | None, typer.Option(min=1, help="Days until it expires; default never.")] = None,
    rate: Annotated[str | None, typer.Option(help="Such as 100/second; default QUANTLYTIC_API_RATE.")] = None,
    daily: Annotated[int | None, typer.Option(min=1, help="Requests on a UTC day; default no quota.")] = None,
) -> None:
    """Make a key and show it, once."""
    from quantlytic_assets.commands.keys import add_key

    add_key(_installation, out, name, scopes, days, rate, daily)


@keys.command("list")
def keys_list(as_json: _Json = False) -> None:
    """All keys, without their secrets."""
    from quantlytic_assets.commands.keys import list_keys

    list_keys(_installation, out, as_json)


@keys.command("revoke")
def keys_revoke(key: Annotated[str, typer.Argument(metavar="ID", help="As `quantlytic keys list` shows it.")]) -> None:
    """Revoke a key and its tokens, for good."""
    from quantlytic_assets.commands.keys import revoke_key

    revoke_key(_installation, out, key)


@keys.command("token")
def keys_token(
    key: Annotated[str, typer.Argument(metavar="ID", help="As `quantlytic keys list` shows it.")],
    scopes: Annotated[str, typer.Option(help="By comma, of the key's; default all of them.")] = "",
    minutes: Annotated[int, typer.Option(min=1, max=1440, help="How long it is valid.")] = 15,
) -> None:
    """Make a token of a key that ends by itself, signed with QUANTLYTIC_API_SECRET."""
    from quantlytic_assets.commands.keys import make_token

    make_token(_installation, out, key, scopes, minutes)


@app.command()
def gaps(
    dataset: Annotated[str | None, typer.Argument(autocompletion=complete_dataset)] = None,
    as_json: _Json = False,
    heat_map: Annotated[bool, typer.Option("--map", help="A heat map, symbol by session, not the list.")] = False,
) -> None:
    """What is missing, why, and what will be done about it."""
    from quantlytic_assets.commands.gaps import show_gaps

    show_gaps(_installation, out, dataset, as_json, heat_map)


@app.command()
def explain(
    what: Annotated[
        str, typer.Argument(metavar="ORDER_ID|STRATEGY", help="A client order id.", autocompletion=complete_strategy)
    ],
    session: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%d"], help="Of a strategy: which session; default the last one traded."),
    ] = None,
    at: Annotated[
        datetime | None,
        typer.Option(formats=_MINUTES, help="Of a strategy: only the bar of this time, UTC."),
    ] = None,
    symbol: Annotated[str | None, typer.Option(help="Of a strategy: only this symbol.")] = None,
    as_json: _Json = False,
) -> None:
    """An order back to what the vendor gave; of a strategy, why it did not trade in a session."""
    from quantlytic_assets.commands.explain import show_explanation

    day, time = session.date() if session else None, at.replace(tzinfo=UTC) if at else None
    show_explanation(_installation, out, what, day, time, symbol, as_json)


@app.command()
def notify(text: Annotated[str, typer.Argument(help="What to say.")]) -> None:
    """Send a message to every address of QUANTLYTIC_NOTIFY, to see that they work."""
    from quantlytic_assets.commands.notify import run_notify

    run_notify(_installation, out, text)


@app.command()
def halt(
    strategy: Annotated[
        str | None,
        typer.Argument(help="Default: list the accounts.", autocompletion=complete_strategy),
    ] = None,
    reason: Annotated[str | None, typer.Option(help="Why, for those who ask later.")] = None,
    liquidate: Annotated[
        bool | None,
        typer.Option("--liquidate/--keep", help="What becomes of what is held; default: risk.liquidate decides."),
    ] = None,
    as_json: _Json = False,
) -> None:
    """Halt the paper account of a strategy from the next bar on; without a strategy, show how the accounts stand."""
    from quantlytic_assets.commands.halts import run_halt, show_accounts

    if strategy is not None:
        if as_json:
            raise UsageError("--json goes with the list of accounts: quantlytic halt --json")
        run_halt(_installation, out, strategy, reason, liquidate)
        return
    if reason is not None or liquidate is not None:
        raise UsageError("say which strategy is to be halted: quantlytic halt STRATEGY")
    show_accounts(_installation, out, as_json)


@app.command()
def resume(
    strategy: Annotated[str, typer.Argument(help="A strategy that is halted.", autocompletion=complete_strategy)],
    reason: Annotated[str | None, typer.Option(help="Why, for those who ask later.")] = None,
) -> None:
    """Let the paper account of a halted strategy go on, whatever it was halted for."""
    from quantlytic_assets.commands.halts import run_resume

    run_resume(_installation, out, strategy, reason)


broker_app = typer.Typer(help="The paper account at a broker.", no_args_is_help=True)
app.add_typer(broker_app, name="broker")


@broker_app.command("status")
def broker_status(as_json: _Json = False) -> None:
    """The account at the broker beside the ledger: positions, working orders, differences (exit code 1)."""
    from quantlytic_assets.commands.broker import show_broker

    show_broker(_installation, out, as_json)


@broker_app.command("trade")
def broker_trade(
    name: Annotated[str, typer.Argument(help="A strategy with broker: ibkr, or a dataset with such strategies.")],
) -> None:
    """Trade at the broker until interrupted, each bar as it comes."""
    from quantlytic_assets.commands.broker import run_broker_trading

    run_broker_trading(_installation, out, name)


@app.command()
def live(
    dataset: Annotated[str, typer.Argument(help="A dataset of the universe.", autocompletion=complete_dataset)],
    source: Annotated[LiveSource, typer.Option(help="What is read of the bus.")] = LiveSource.AUTO,
    trade: Annotated[bool, typer.Option("--trade", help="Trade the strategies' paper accounts.")] = False,
) -> None:
    """Bars, features and signals of a dataset as they come over the bus, until SIGINT or SIGTERM."""
    from quantlytic_assets.commands.live import run_live

    run_live(_installation, out, dataset, source.value, trade)


@app.command()
def status(as_json: _Json = False) -> None:
    """Sessions, bars, holes and bytes of each dataset, and strategies that are halted."""
    from quantlytic_assets.commands.halts import show_halted
    from quantlytic_assets.commands.inspection import show_status

    show_status(_installation, out, as_json)
    if not as_json:
        show_halted(_installation, out)


@app.command()
def sql(
    query: Annotated[str, typer.Argument(help="One SELECT.")],
    table_format: Annotated[TableFormat, typer.Option("--format")] = TableFormat.TABLE,
    as_of: Annotated[
        datetime | None,
        typer.Option("--as-of", formats=["%Y-%m-%d"], help="Day that features.adjusted_bars is for; default today."),
    ] = None,
) -> None:
    """Ask the lake, read-only."""
    from quantlytic_assets.commands.inspection import run_sql

    run_sql(_installation, out, query, table_format.value, as_of.date() if as_of else None)


@app.command()
def features(
    name: Annotated[str | None, typer.Argument(help="A feature, such as rsi or 'bb(20, 2.5)'; default all.")] = None,
    dataset: Annotated[
        str | None,
        typer.Option("--dataset", help="The columns of a dataset, with their nulls.", autocompletion=complete_dataset),
    ] = None,
    as_json: _Json = False,
) -> None:
    """The features there are, with their formulas, and those of a dataset."""
    from quantlytic_assets.commands.features import show_features

    show_features(_installation, out, name, dataset, as_json)


@app.command()
def migrate(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be changed, and change nothing.")] = False,
) -> None:
    """Bring the tables of an installation that an older version made up to date."""
    from quantlytic_assets.commands.migrating import run_migrate

    run_migrate(_installation, out, dry_run)


@app.command()
def docs(serve: Annotated[bool, typer.Option("--serve/--no-serve", help="Serve them after building.")] = True) -> None:
    """Build the dbt docs and serve them on 127.0.0.1."""
    from quantlytic_assets.commands.docs import run_docs

    run_docs(_installation, out, serve)


@app.command()
def doctor() -> None:
    """What is missing or wrong on this machine, and how to mend it."""
    from quantlytic_assets.commands.doctor import run_doctor

    run_doctor(_installation, out)


def main(arguments: list[str] | None = None) -> None:
    """Entry point of the `quantlytic` command."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    # Accepted anywhere on the line: people add it at the end of what failed.
    given = [argument for argument in given if argument != "--debug"]
    try:
        app(given, standalone_mode=True)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        # Only here: to load it takes longer than help or a completion may.
        from quantlytic_assets.settings import SettingsError

        usage = isinstance(error, (SettingsError, UniverseError, UsageError))
        _end(error, 2 if usage else 1, debug, hint=not usage and not isinstance(error, (CommandError, LayoutError)))


def _end(error: Exception, code: int, debug: bool, hint: bool = False) -> None:
    if debug:
        raise error
    err.print(str(error) or type(error).__name__, style="red", markup=False, highlight=False, soft_wrap=True)
    if hint:
        err.print("Run the same command with --debug to see where it failed.", highlight=False)
    sys.exit(code)
