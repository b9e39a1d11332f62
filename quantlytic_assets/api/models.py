"""The shapes of answers, for the OpenAPI document alone: answers are made of what the hot store has."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Hole(BaseModel):
    """A stretch [start, end) of bars that are missing, and why."""

    start: str
    end: str
    cause: Literal["not_fetched", "vendor_hole", "outage", "no_trade", "unknown"]
    bars: int


class Bar(BaseModel):
    """A bar: t is its start, UTC."""

    t: str
    o: float
    h: float
    low: float = Field(alias="l")
    c: float
    v: float | None = None
    n: int | None = None
    vw: float | None = None


class Covered(BaseModel):
    """What is common to answers of rows."""

    dataset: str
    symbol: str
    interval: str
    adjustment: str = Field(description="what prices are adjusted for: none, split, all, or mixed")
    asof: str | None = Field(description="the time, UTC, whose knowledge the answer has")
    expected: int = Field(description="bars of the dataset's own interval that the calendar expects in the range")
    present: int
    holes: list[Hole]
    count: int
    next: str | None = Field(description="cursor of the next page; null at the end of the range")


class Candles(Covered):
    """Bars of a range, oldest first."""

    bars: list[Bar]


class Indicators(Covered):
    """Values of features, oldest first: a row a bar, a member a feature that is defined there."""

    names: list[str]
    values: list[dict[str, Any]]


class Price(BaseModel):
    """The newest price of a symbol."""

    dataset: str
    symbol: str
    price: float
    time: str
    size: float | None = None
    source: Literal["live", "lake"]
    asof: str
    adjustment: str


class Anything(BaseModel):
    """An object."""

    model_config = ConfigDict(extra="allow")


class Problem(BaseModel):
    """Problem details (RFC 9457)."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    detail: str
