"""What strategies say, hold and did, what data lack, and the kill switch: the only trading that the API can do."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Annotated, Any

import orjson
from fastapi import Body, Path, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from quantlytic_assets.api import models
from quantlytic_assets.api.access import ADMIN, MARKET, TRADING
from quantlytic_assets.api.answers import Reply, Rows, respond
from quantlytic_assets.api.gate import caller_of
from quantlytic_assets.api.parameters import BEGINNING, END, day_of, span_of, time_of
from quantlytic_assets.api.prices import Cursor, End, Start
from quantlytic_assets.api.problems import Problem, unknown
from quantlytic_assets.api.routes import responses, router
from quantlytic_assets.api.series import page
from quantlytic_assets.services.halts import HaltError, Standing, ask_to_halt, ask_to_resume, standings
from quantlytic_assets.serving.rows import iso

if TYPE_CHECKING:
    from fastapi import APIRouter

    from quantlytic_assets.api.context import Context
    from quantlytic_assets.universe.models import Strategy

Name = Annotated[str, Path(description="A strategy of the universe", examples=["cross_1d"])]
OneStrategy = Annotated[str | None, Query(description="Only of this strategy", examples=["cross_1d"])]
OneSymbol = Annotated[str | None, Query(description="Only of this symbol", examples=["AAPL"])]
_DECIDED = re.compile(r":(\d{4}-\d\d-\d\dT[\d:.]+Z):")
Few = Annotated[int, Query(ge=1, le=1000, description="How many at most")]


class HaltRequest(BaseModel):
    """Why a strategy is to be halted, and what becomes of what it holds."""

    model_config = ConfigDict(extra="forbid")

    reason: str | None = Field(None, max_length=500, description="Why, for those who ask later")
    liquidate: bool | None = Field(None, description="Whether holdings are sold; null: its risk.liquidate decides")


class ResumeRequest(BaseModel):
    """Why a halted strategy goes on."""

    model_config = ConfigDict(extra="forbid")

    reason: str | None = Field(None, max_length=500, description="Why, for those who ask later")


def strategy_routes(context: Context) -> APIRouter:
    """The routes of signals, gaps and strategies, which are market data."""
    routes = router("strategies", MARKET)

    @routes.get("/signals/{strategy}", summary="Signals by symbol, oldest first",
                responses=responses(models.Anything))  # fmt: skip
    async def signals(
        request: Request, strategy: Name, symbol: OneSymbol = None, start: Start = None, end: End = None,
        limit: Annotated[int, Query(ge=1, le=10_000, description="How many a symbol at most")] = 100,
        cursor: Cursor = None,
    ) -> Response:  # fmt: skip
        found = context.strategy(strategy)
        if symbol is not None and symbol not in found.symbols:
            raise unknown(f"symbol in {strategy}", symbol, found.symbols)
        first, last = span_of(start, end)
        dataset = context.dataset(found.dataset)
        if cursor is not None:
            first = max(first, time_of("cursor", cursor))
        with context.hot.read() as store:
            asof = orjson.loads(store.fact("strategy", strategy) or b"{}").get("published_at")
            names = (symbol,) if symbol else found.symbols
            pages = {one: page(store, dataset, (f"signals/{strategy}",), one, first, last, limit) for one in names}
        # A page ends for all symbols where it ends for the first.
        ends = [one.following for one in pages.values() if one.following is not None]
        rows = {name: one.block.between(first, min(ends)) if ends else one.block for name, one in pages.items()}
        parts = [orjson.dumps(name) + b":[" + block.body + b"]" for name, block in rows.items()]
        head = {
            "strategy": strategy, "dataset": found.dataset, "interval": found.interval, "adjustment": "none",
            "asof": asof, "next": iso(min(ends)) if ends else None,
        }  # fmt: skip
        body = orjson.dumps(head)[:-1] + b',"signals":{' + b",".join(parts) + b"}}"
        return respond(request, Reply(orjson.Fragment(body)))

    @routes.get("/gaps/{dataset}", summary="What is missing, and why", responses=responses(models.Anything, rows=True))
    async def gaps(
        request: Request, dataset: Annotated[str, Path(examples=["crypto_1m"])], symbol: OneSymbol = None,
        start: Start = None, end: End = None, limit: Few = 1000, cursor: Cursor = None,
    ) -> Response:  # fmt: skip
        found = context.dataset(dataset)
        names = sorted(one.symbol for one in found.symbols)
        if symbol is not None and symbol not in names:
            raise unknown(f"symbol in {dataset}", symbol, names)
        first, last = span_of(start, end)
        after = cursor.rsplit("|", 1) if cursor else ["", ""]
        if len(after) != 2:
            raise Problem(422, f"cursor={cursor} is no `next` of a page of gaps.", parameter="cursor")
        lacking: list[bytes] = []
        asof, expected, present = "", 0, 0
        following: str | None = None
        shown = ""
        since = day_of(first).isoformat() if first > BEGINNING else ""
        before = day_of(last).isoformat() if last < END else "9999-12-31"
        with context.hot.read() as store:
            for name in (symbol,) if symbol else names:
                for (day,), fact in store.facts("coverage", dataset, name, since=since):
                    if day >= before:
                        break
                    said = orjson.loads(fact)
                    asof = max(asof, said["asof"])
                    expected += said["expected"]
                    present += said["present"]
                    if not said["missing"] or [name, day] <= after:
                        continue
                    if len(lacking) == limit:
                        following = shown
                        continue
                    shown = f"{name}|{day}"
                    gap = {"dataset": dataset, "symbol": name, "session": day, "missing_bars": said["missing"]}
                    lacking.append(orjson.dumps({**gap, "ranges": said["holes"]}))
        head = {"dataset": dataset, "interval": found.interval, "partition": found.partition, "adjustment": "none",
                "asof": asof or None, "expected": expected, "present": present, "count": len(lacking),
                "next": following}  # fmt: skip
        return respond(request, Reply(Rows(head, "gaps", b",".join(lacking))))

    @routes.get("/strategies", summary="The strategies, and how their accounts stand",
                responses=responses(models.Anything))  # fmt: skip
    async def strategies(request: Request) -> Response:
        named = context.declared.strategies
        # The state database, not the lake; in a thread, for it may be a server's.
        stand = await asyncio.to_thread(lambda: standings(context.resources.accounts, named))
        with context.hot.read() as store:
            told = [_strategy(one, store.fact("strategy", one.name), stand[one.name]) for one in named.values()]
        return respond(request, Reply({"count": len(told), "strategies": told}))

    return routes


def _strategy(strategy: Strategy, fact: bytes | None, standing: Standing) -> dict[str, Any]:
    said = {
        "name": strategy.name, "dataset": strategy.dataset, "interval": strategy.interval,
        "symbols": list(strategy.symbols), "rule": strategy.rule, "broker": strategy.broker,
    }  # fmt: skip
    return {**said, **orjson.loads(fact or b"{}"), "halted": standing.halted, "standing": standing.said}


def trading_routes(context: Context) -> APIRouter:
    """The routes of orders, positions and explanations, which are for those who may see trading."""
    routes = router("trading", TRADING)

    def chosen(strategy: str | None) -> list[str]:
        return [context.strategy(strategy).name] if strategy else list(context.declared.strategies)

    @routes.get("/orders", summary="Orders with their fills, newest first", responses=responses(models.Anything))
    async def orders(
        request: Request, strategy: OneStrategy = None, symbol: OneSymbol = None,
        status: Annotated[str | None, Query(description="Only of this status", examples=["filled"])] = None,
        limit: Few = 100, cursor: Annotated[str | None, Query(description="`next` of the page before")] = None,
    ) -> Response:  # fmt: skip
        shown: list[dict[str, Any]] = []
        following, last = None, ""
        with context.hot.read() as store:
            every = [
                (_age(key[-1], body), body) for name in chosen(strategy) for key, body in store.facts("orders", name)
            ]
            every.sort(reverse=True)
            for age, body in every:
                if cursor is not None and age >= cursor:
                    continue
                one = orjson.loads(body)
                if (symbol is None or one.get("symbol") == symbol) and (status is None or one.get("status") == status):
                    if len(shown) == limit:
                        following = last
                        break
                    shown.append(one)
                    last = age
        return respond(request, Reply({"count": len(shown), "next": following, "orders": shown}))

    @routes.get("/positions", summary="What accounts hold, and their equity", responses=responses(models.Anything))
    async def positions(
        request: Request, strategy: OneStrategy = None,
        curve: Annotated[bool, Query(description="Whether the equity of each session is told too")] = False,
    ) -> Response:  # fmt: skip
        told = []
        with context.hot.read() as store:
            for name in chosen(strategy):
                account = orjson.loads(store.fact("equity", name) or b"null")
                if account and curve:
                    account["curve"] = orjson.loads(store.fact("curve", name) or b"[]")
                held = orjson.loads(store.fact("positions", name) or b"[]")
                told.append({"strategy": name, "account": account, "positions": held})
        return respond(request, Reply({"count": len(told), "accounts": told}))

    @routes.get("/trades/{order_id:path}/explain", summary="An order back to what the vendor gave",
                description="Reads the lake, in a thread beside the other requests: this takes up to some seconds.",
                responses=responses(models.Anything))  # fmt: skip
    async def explain(
        request: Request,
        order_id: Annotated[str, Path(examples=["cross_1d:AAPL:2009-03-19T20:00:00Z:entry"])],
    ) -> Response:
        from quantlytic_assets.services.explain import UnknownOrder, explain_order

        universe = context.declared
        owner = universe.strategies.get(order_id.partition(":")[0])
        dataset = universe.datasets[owner.dataset] if owner else None
        try:
            found = await asyncio.to_thread(explain_order, context.resources, dataset, owner, order_id)
        except UnknownOrder as error:
            raise Problem(404, str(error)) from None
        return respond(request, Reply(orjson.Fragment(orjson.dumps(found.told(), default=str))))

    return routes


def admin_routes(context: Context) -> APIRouter:
    """The routes that change something: halting a strategy's account, and letting it go on."""
    routes = router("admin", ADMIN)

    async def asked(request: Request, ask: Any, *more: Any) -> Response:
        try:
            standing = await asyncio.to_thread(ask, context.resources.accounts, *more)
        except HaltError as error:
            raise Problem(409, str(error)) from None
        said = {"strategy": standing.strategy, "halted": standing.halted, "standing": standing.said}
        return respond(request, Reply(said))

    @routes.post("/strategies/{name}/halt", summary="Halt a strategy's account from the next bar on",
                 responses=responses(models.Anything))  # fmt: skip
    async def halt(request: Request, name: Name, why: Annotated[HaltRequest | None, Body()] = None) -> Response:
        strategy, why = context.strategy(name), why or HaltRequest()
        by = f"api key {caller_of(request).name}"
        return await asked(request, ask_to_halt, strategy.name, by, why.reason, why.liquidate)

    @routes.post("/strategies/{name}/resume", summary="Let a halted account go on",
                 responses=responses(models.Anything, also=(409,)))  # fmt: skip
    async def resume(request: Request, name: Name, why: Annotated[ResumeRequest | None, Body()] = None) -> Response:
        strategy, why = context.strategy(name), why or ResumeRequest()
        by = f"api key {caller_of(request).name}"
        return await asked(request, ask_to_resume, strategy.name, by, why.reason)

    return routes


def _age(order: str, body: bytes) -> str:
    """What orders are sorted by: the time of the decision, which ids have in them, and the id."""
    found = _DECIDED.search(order)
    return f"{found[1] if found else orjson.loads(body or b'{}').get('decision_time', '')}|{order}"
