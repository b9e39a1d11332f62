"""Types of a universe file's fields: what each takes, what it becomes, and what is said of everything else.

In a message `{given}` stands for the value as it was written. With `PARTIAL` as the validation's context None passes
everywhere: it stands for what is known to be wrong while the rest is checked together.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from difflib import get_close_matches
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, WrapValidator, field_validator
from pydantic_core import PydanticCustomError, core_schema

from quantlytic_assets.universe.yaml_tree import Whole

PARTIAL = {"partial": True}

_FIRST_YEAR, _LAST_YEAR = 1900, 2100
_ISO_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_DURATION = re.compile(r"(\d{1,6})(s|m|h|d)")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_PERCENT = re.compile(r"(\d{1,9}(?:\.\d{1,9})?) ?%")
_SYMBOL = re.compile(r"[\w^.=/:+\-&$#@!~*]{1,64}")
_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")

T = TypeVar("T")


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that `name` was probably meant to be, upper and lower case being the same; None if none is."""
    folded = {one.casefold(): one for one in known}
    found = get_close_matches(name.casefold(), list(folded), n=1, cutoff=0.6)
    return folded[found[0]] if found else None


def suggestion(name: str, known: Sequence[str]) -> str:
    """`did you mean …?`, or the known names where none is near."""
    near = nearest(name, known)
    return f"did you mean '{near}'?" if near else f"take one of {', '.join(known)}"


def _none_if_partial(value: Any, handler: Callable[[Any], Any], info: ValidationInfo) -> Any:
    return None if value is None and info.context is PARTIAL else handler(value)


def _any_if_partial(value: Any, handler: Callable[[Any], Any], info: ValidationInfo) -> Any:
    return value if info.context is PARTIAL else handler(value)


# A list or mapping whose items can be wrong one by one.
Item = Annotated[T, WrapValidator(_none_if_partial)]
Key = Annotated[T, WrapValidator(_any_if_partial)]


class Declaration(BaseModel):
    """A mapping of the file with its fields. Its `title` says in words what should stand there."""

    model_config = ConfigDict(extra="forbid", title="a mapping of fields")

    _partial = field_validator("*", mode="wrap")(_none_if_partial)


def required(description: str, wanted: str | None = None, **more: Any) -> Any:
    """A field without default: what it means, and what should stand there where its type does not say that."""
    return Field(title=wanted, description=description, **more)


def optional(description: str, default: Any = None, wanted: str | None = None, **more: Any) -> Any:
    """A field that may be left out, but not be empty; default None where it follows from other fields."""
    return Field(default=default, title=wanted, description=description, **more)


def wrong(said: str, kind: str = "said") -> PydanticCustomError:
    """What to raise for a wrong value: the sentence that follows its place."""
    return PydanticCustomError(kind, said)


@dataclass(frozen=True, eq=False)
class Parsed:
    """A type: what should stand there, the function from what is written to what is meant, and the JSON Schema."""

    wanted: str
    parse: Callable[[Any], Any]
    schema: dict[str, Any]

    def __get_pydantic_core_schema__(self, _source: Any, _handler: Any) -> core_schema.CoreSchema:
        """Validate by the function alone."""
        return core_schema.no_info_plain_validator_function(self.parse)

    def __get_pydantic_json_schema__(self, _schema: Any, _handler: Any) -> dict[str, Any]:
        """Show the schema as it was given."""
        return dict(self.schema)


def one_of(options: Sequence[str], said: str = "", otherwise: str = "", wanted: str = "") -> Parsed:
    """One of a few words. `said` names what a value is not, `otherwise` what to take where no option is near."""
    listed = f"one of {', '.join(options)}"

    def check(value: Any) -> str:
        if isinstance(value, str) and value in options:
            return value
        near = nearest(str(value), options)
        meant = f"did you mean '{near}'?" if near else ""
        if said:
            raise wrong(f"{{given}} is {said}, {meant or otherwise or f'take {listed}'}")
        raise wrong(f"{{given}} is not known, it should be {listed}{meant and ', '}{meant}")

    return Parsed(wanted or listed, check, {"type": "string", "enum": list(options)})


def whole(least: int, most: int) -> Parsed:
    """A whole number in [least, most]; `true` is none."""
    wanted = f"a whole number from {least} to {most}"

    def check(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise wrong(f"{{given}} should be {wanted}")
        return int(value)

    return Parsed(wanted, check, {"type": "integer", "minimum": least, "maximum": most})


def number(least: float, most: float, above: bool = False) -> Parsed:
    """A finite number in [least, most], or (least, most] where it must be `above`."""
    wanted = f"a number {'above' if above else 'from'} {least:g} {'up ' if above else ''}to {most:g}"

    def check(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise wrong(f"{{given}} should be {wanted}")
        # NaN fails every comparison, so it is refused by asking for what is wanted.
        if not ((value > least if above else value >= least) and value <= most):
            raise wrong(f"{{given}} should be {wanted}")
        return float(value)

    return Parsed(wanted, check, {"type": "number", "exclusiveMinimum" if above else "minimum": least, "maximum": most})


def percentage(value: Any) -> float | None:
    """What a text such as `5%` means as a number (0.05); None for everything else."""
    found = _PERCENT.fullmatch(value) if isinstance(value, str) else None
    return float(found[1]) / 100 if found else None


def share(least: float, most: float, above: bool = False, word: str | None = None) -> Parsed:
    """A part of a whole in [least, most], or (least, most], as `5%` or as 0.05; `word` stands for None."""
    wanted = f"a share {'above' if above else 'from'} {least:.0%} {'up ' if above else ''}to {most:.0%}"
    wanted += f", such as 5% or 0.05{f', or {word}' if word else ''}"
    within = number(least, most, above)

    def check(value: Any) -> float | None:
        if word is not None and value == word:
            return None
        try:
            given: float = within.parse(value if (found := percentage(value)) is None else found)
        except PydanticCustomError:
            raise wrong(f"{{given}} should be {wanted}") from None
        return given

    texts = [{"type": "string", "pattern": f"^{_PERCENT.pattern}$"}, *([{"const": word}] if word else [])]
    return Parsed(wanted, check, {"anyOf": [within.schema, *texts]})


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise wrong("{given} should be true or false")
    return value


FLAG = Parsed("true or false", _flag, {"type": "boolean"})


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    # A number that is written as it reads (600519) can only be meant as that text; 000001 is read as 1.
    if isinstance(value, Whole) and str(value) == value.text:
        return value.text
    raise wrong("", "text")


def _venue(value: Any) -> str:
    venue = _text(value)
    if not venue.strip():
        raise wrong("is blank, name the market place or leave the field out")
    return venue


def symbol(value: Any) -> str:
    """A symbol as vendors and exchanges write them."""
    written = _text(value)
    if not _SYMBOL.fullmatch(written):
        raise wrong("{given} is no usable symbol, take letters, digits and ^.=/:+-&$#@!~* only")
    return written


def _name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise wrong("no usable name, take lower-case letters, digits and _ (63 at most), a letter first")
    return value


def _day(value: Any) -> date:
    if isinstance(value, str) and _ISO_DATE.fullmatch(value):
        try:
            value = date.fromisoformat(value)
        except ValueError as error:
            raise wrong(f"{{given}} is not a date ({error}), write one as YYYY-MM-DD") from None
    elif isinstance(value, str) and _ISO_DATE.match(value):
        raise wrong(f"{{given}} has a time of day, write the date alone: {value[:10]}")
    if not isinstance(value, date):
        raise wrong("{given} is not a date, write one as YYYY-MM-DD")
    if not _FIRST_YEAR <= value.year <= _LAST_YEAR:
        raise wrong(f"{value} is no year of market data, take one from {_FIRST_YEAR} to {_LAST_YEAR}")
    return value


def _moment(value: Any) -> datetime:
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        moment = None
    if moment is None or moment.utcoffset() is None:
        raise wrong("{given} should be a time with its zone such as 2021-04-25T04:02Z")
    return moment.astimezone(UTC)


def span(least: timedelta, most: timedelta | None = None) -> Parsed:
    """A length of time such as 0s, 5m or 2h, in [least, most]."""
    wanted = "a length of time such as 0s, 5m or 2h"

    def parse(value: Any) -> timedelta:
        matched = _DURATION.fullmatch(value) if isinstance(value, str) else None
        if matched is None:
            raise wrong(f"{{given}} is not a time span, it should be {wanted}")
        length = timedelta(seconds=int(matched[1]) * _SECONDS[matched[2]])
        if length < least:
            raise wrong(f"is too short, take {f'{least.days}d' if least.days else '1m'} or more")
        if most and length > most:
            raise wrong(f"is too long, take {most.days}d or less, or leave it out")
        return length

    return Parsed(wanted, parse, {"type": "string", "pattern": f"^{_DURATION.pattern}$"})


_WORD = {"type": ["string", "integer"]}
_DATE = "a date as YYYY-MM-DD"
_TIME = "a time with its zone such as 2021-04-25T04:02Z"


def text(wanted: str) -> Parsed:
    """Any text."""
    return Parsed(wanted, _text, _WORD)


SYMBOL_SCHEMA = {**_WORD, "pattern": f"^{_SYMBOL.pattern}$"}
Symbol = Annotated[str, Parsed("a symbol such as AAPL", symbol, SYMBOL_SCHEMA)]
Venue = Annotated[str, Parsed("the name of the market place", _venue, {**_WORD, "pattern": r"\S"})]
Name = Key[Annotated[str, Parsed("a name", _name, {"type": "string", "pattern": f"^{_NAME.pattern}$"})]]
Day = Annotated[date, Parsed(_DATE, _day, {"type": "string", "pattern": f"^{_ISO_DATE.pattern}$"})]
Moment = Annotated[datetime, Parsed(_TIME, _moment, {"type": "string", "pattern": r"(Z|[+-]\d{2}:?\d{2})$"})]
