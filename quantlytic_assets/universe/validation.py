"""Reading a YAML file so that every mistake in it is found, each with its place in the file.

General means only: text to tree, and typed access to the fields of a mapping. Which fields a universe has, and what
they mean together, is decided in `universe_file` and `universe_strategies`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

# The file needs five levels; more is a mistake, or an anchor that holds itself.
_DEEPEST = 12
_FIRST_YEAR, _LAST_YEAR = 1900, 2100
_DURATION = re.compile(r"(\d{1,6})(s|m|h|d)")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_ISO_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_SCALARS = {"bool": "a truth value", "int": "a number", "float": "a number", "timestamp": "a date", "null": "nothing"}


@dataclass(frozen=True)
class Leaf:
    """A scalar of the file: what YAML made of it, and how it was written (YAML reads `NO` as false)."""

    value: Any
    text: str


# A value that is already among the mistakes: whoever reads it says nothing more.
REJECTED = Leaf(None, "")


def read_tree(path: Path) -> tuple[dict[str, Any], list[str]]:
    """The mapping a YAML file holds, and its mistakes so far (bad scalars, keys given twice).

    Mappings are dicts with text keys, sequences lists, scalars `Leaf`. A file that can't be read at all (missing, not
    UTF-8, empty, no valid YAML, no mapping) gives an empty tree and exactly one mistake.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        return {}, [f"{path}: no such file; create it or point QUANTLYTIC_UNIVERSE at another one"]
    except UnicodeDecodeError as error:
        return {}, [f"{path}: not UTF-8 text (byte {error.start}); save the file as UTF-8"]
    except OSError as error:
        return {}, [f"{path}: can't be read ({error.strerror}); it should be a YAML file"]
    mistakes: list[str] = []
    loader = None
    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        tree = _Reader(loader, mistakes).read(root, "", 0) if root is not None else None
    except yaml.YAMLError as error:
        return {}, [f"{path}: {_syntax_fault(error)}"]
    except RecursionError:
        return {}, [f"{path}: nested too deeply to be read; a universe has five levels"]
    finally:
        if loader is not None:
            loader.dispose()
    if tree is None:
        return {}, [f"{path}: the file is empty; it should hold `datasets:` and, if you like, `strategies:`"]
    if not isinstance(tree, dict):
        return {}, [f"{path}: holds {describe(tree)}; it should be a mapping with `datasets:`"]
    return tree, mistakes


def _syntax_fault(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "unreadable"
    if mark is None:
        return f"not valid YAML ({problem}); correct the syntax"
    return f"line {mark.line + 1}, column {mark.column + 1}: not valid YAML ({problem}); correct the syntax there"


class _Reader:
    """Turns YAML nodes into a tree, noting what YAML would reject or silently drop."""

    def __init__(self, loader: yaml.SafeLoader, mistakes: list[str]):
        self._loader = loader
        self._mistakes = mistakes

    def read(self, node: yaml.Node, path: str, depth: int) -> Any:
        if depth > _DEEPEST:
            self._mistakes.append(f"{path}: nested too deeply; a universe has five levels")
            return REJECTED
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path, depth)
        if isinstance(node, yaml.SequenceNode):
            return [self.read(item, f"{path}[{i}]", depth + 1) for i, item in enumerate(node.value)]
        return self._scalar(node, path)

    def _mapping(self, node: yaml.MappingNode, path: str, depth: int) -> dict[str, Any]:
        seen: dict[str, int] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                line = key.start_mark.line + 1
                if key.value in seen:
                    self._mistakes.append(
                        f"{_join(path, key.value)}: given twice (lines {seen[key.value]} and {line}), keep one of them"
                    )
                seen.setdefault(key.value, line)
        # Only now, so that a field which overrides an anchor's is not taken for a repeated one.
        self._loader.flatten_mapping(node)
        tree: dict[str, Any] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                line = key.start_mark.line + 1
                self._mistakes.append(f"{path or 'file'}: line {line} has a key that is not text, write a plain name")
                continue
            tree[key.value] = self.read(value, _join(path, key.value), depth + 1)
        return tree

    def _scalar(self, node: yaml.Node, path: str) -> Leaf:
        kind = node.tag.rpartition(":")[2]
        try:
            return Leaf(self._loader.construct_object(node, deep=True), node.value)
        except (ValueError, OverflowError, yaml.constructor.ConstructorError) as error:
            if kind == "timestamp":
                fault = f"'{short(node.value)}' is not a date ({error}), write one as YYYY-MM-DD"
            elif kind in _SCALARS:
                fault = f"'{short(node.value)}' can't be read as {_SCALARS[kind]}, correct it or quote it"
            else:
                fault = f"'{short(node.value)}' has the unknown type {node.tag}, write a plain value"
            self._mistakes.append(f"{path}: {fault}")
            return REJECTED


def _join(path: str, name: str) -> str:
    name = short(name)
    return f"{path}.{name}" if path else name


def short(text: str) -> str:
    """A value's text on one line and no longer than a message bears."""
    line = " ".join(text.split())
    return line if len(line) <= 60 else line[:57] + "..."


def describe(value: Any) -> str:
    """What a value of the tree is, in words for a message."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if value.value is None:
        return "nothing"
    if isinstance(value.value, str):
        return f"'{short(value.value)}'"
    if isinstance(value.value, bool):
        return f"'{value.text}', which YAML reads as {str(value.value).lower()}"
    return f"'{short(value.text)}'"


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that `name` was probably meant to be, upper and lower case being the same; None if none is."""
    folded = {one.casefold(): one for one in known}
    found = get_close_matches(name.casefold(), list(folded), n=1, cutoff=0.6)
    return folded[found[0]] if found else None


def suggestion(name: str, known: Sequence[str]) -> str:
    """`did you mean …?`, or the known names where none is near."""
    near = nearest(name, known)
    return f"did you mean '{near}'?" if near else f"take one of {', '.join(known)}"


class Fields:
    """Typed access to a mapping of the file. Each reader gives the value, or None after noting the mistake."""

    def __init__(
        self, tree: Mapping[str, Any], path: str, mistakes: list[str], known: Sequence[str], required: Sequence[str]
    ):
        self._tree = tree
        self._path = path
        self._mistakes = mistakes
        # A misspelt name is one mistake: its field is not reported missing too.
        misspelt: set[str] = set()
        for name in tree:
            if name in known:
                continue
            near = nearest(name, [one for one in known if one not in tree])
            misspelt.add(near or "")
            hint = f"did you mean '{near}'?" if near else f"fields are {', '.join(known)}"
            self.wrong(name, f"unknown field, {hint}")
        for name in required:
            if name not in tree and name not in misspelt:
                self.wrong(name, "missing, add it: it has no default")

    def wrong(self, name: str, message: str) -> None:
        """Note a mistake in field `name`."""
        self._mistakes.append(f"{_join(self._path, name)}: {message}")

    def has(self, name: str) -> bool:
        """Whether the field is given (an empty one is not)."""
        found = self._tree.get(name)
        return found is not None and not (isinstance(found, Leaf) and found.value is None and found is not REJECTED)

    def raw(self, name: str, wanted: str) -> Any:
        """The tree below a field; None where it is absent or rejected; a field left empty is a mistake."""
        found = self._tree.get(name)
        if found is None or found is REJECTED:
            return None
        if isinstance(found, Leaf) and found.value is None:
            self.wrong(name, f"is empty, it should be {wanted}")
            return None
        return found

    def text(self, name: str, wanted: str) -> str | None:
        """A text field."""
        found = self.raw(name, wanted)
        return None if found is None else self.as_text(found, name, wanted)

    def as_text(self, found: Any, name: str, wanted: str) -> str | None:
        """The text of one scalar, which may stand in a list (then `name` has its position)."""
        if found is REJECTED:
            return None
        if isinstance(found, Leaf):
            if isinstance(found.value, str):
                return found.value
            # A number that is written as it reads (600519) can only be meant as that text; 000001 is read as 1.
            if type(found.value) is int and str(found.value) == found.text:
                return found.text
            if not isinstance(found.value, (int, float, date)) and found.value is not None:
                self.wrong(name, f"{describe(found)} is not text, it should be {wanted}")
                return None
            kind = str(found.value).lower() if isinstance(found.value, (bool, int, float, date)) else "nothing"
            self.wrong(name, f'YAML reads {short(found.text) or "this"} as {kind}, quote it: "{short(found.text)}"')
            return None
        self.wrong(name, f"is {describe(found)}, it should be {wanted}")
        return None

    def choice(self, name: str, options: Sequence[str], default: str | None = None) -> str | None:
        """One of a few words."""
        wanted = f"one of {', '.join(options)}"
        found = self.raw(name, wanted)
        if found is None:
            return default
        if not isinstance(found, Leaf):
            self.wrong(name, f"is {describe(found)}, it should be {wanted}")
            return default
        if found.value not in options or not isinstance(found.value, str):
            near = nearest(found.text, options)
            hint = f", did you mean '{near}'?" if near else ""
            self.wrong(name, f"{describe(found)} is not known, it should be {wanted}{hint}")
            return default
        return found.value

    def day(self, name: str) -> date | None:
        """A date without a time of day, quoted or not."""
        found = self.raw(name, "a date as YYYY-MM-DD")
        if found is None:
            return None
        value = found.value if isinstance(found, Leaf) else None
        if isinstance(value, str) and _ISO_DATE.fullmatch(value):
            try:
                value = date.fromisoformat(value)
            except ValueError as error:
                self.wrong(name, f"'{value}' is not a date ({error}), write one as YYYY-MM-DD")
                return None
        if isinstance(value, datetime):
            self.wrong(name, f"'{found.text}' has a time of day, write the date alone: {value.date().isoformat()}")
        elif not isinstance(value, date):
            self.wrong(name, f"{describe(found)} is not a date, write one as YYYY-MM-DD")
        elif not _FIRST_YEAR <= value.year <= _LAST_YEAR:
            self.wrong(name, f"{value} is no year of market data, take one from {_FIRST_YEAR} to {_LAST_YEAR}")
        else:
            return value
        return None

    def moment(self, name: str) -> datetime | None:
        """A time with its zone, quoted or not, such as 2021-04-25T04:02Z; in UTC."""
        wanted = "a time with its zone such as 2021-04-25T04:02Z"
        found = self.raw(name, wanted)
        if found is None:
            return None
        try:
            # As it is written: YAML itself drops the zone of some notations.
            value = datetime.fromisoformat(found.text) if isinstance(found, Leaf) else None
        except ValueError:
            value = None
        if value is None or value.utcoffset() is None:
            self.wrong(name, f"{describe(found)} should be {wanted}")
            return None
        return value.astimezone(UTC)

    def duration(self, name: str, default: timedelta) -> timedelta:
        """A length of time such as 0s, 5m or 2h."""
        wanted = "a length of time such as 0s, 5m or 2h"
        found = self.raw(name, wanted)
        if found is None:
            return default
        matched = _DURATION.fullmatch(found.value) if isinstance(found, Leaf) and isinstance(found.value, str) else None
        if matched is None:
            self.wrong(name, f"{describe(found)} is not a time span, it should be {wanted}")
            return default
        return timedelta(seconds=int(matched[1]) * _SECONDS[matched[2]])

    def whole(self, name: str, default: int, least: int, most: int) -> int:
        """A whole number in [least, most]; `true` is none."""
        wanted = f"a whole number from {least} to {most}"
        found = self.raw(name, wanted)
        if found is None:
            return default
        value = found.value if isinstance(found, Leaf) else None
        if type(value) is not int or not least <= value <= most:
            self.wrong(name, f"{describe(found)} should be {wanted}")
            return default
        return value

    def number(self, name: str, default: float, least: float, most: float, open_below: bool = False) -> float:
        """A finite number in [least, most], or (least, most] with `open_below`."""
        wanted = f"a number {'above' if open_below else 'from'} {least:g} {'up ' if open_below else ''}to {most:g}"
        found = self.raw(name, wanted)
        if found is None:
            return default
        value = found.value if isinstance(found, Leaf) else None
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            self.wrong(name, f"{describe(found)} should be {wanted}")
            return default
        # NaN fails every comparison, so it is rejected by asking for what is wanted.
        inside = value > least if open_below else value >= least
        if not (inside and value <= most and not math.isnan(value)):
            self.wrong(name, f"{describe(found)} should be {wanted}")
            return default
        return float(value)

    def listed(self, name: str, wanted: str) -> list[Any] | None:
        """The items of a list, each still a tree."""
        found = self.raw(name, wanted)
        if found is None:
            return None
        if not isinstance(found, list):
            self.wrong(name, f"is {describe(found)}, it should be {wanted}")
            return None
        return found

    def words(self, name: str, wanted: str) -> list[tuple[str, str]] | None:
        """A list of different texts as (position such as `vendors[1]`, text); those with a mistake are left out."""
        items = self.listed(name, wanted)
        if items is None:
            return None
        found: list[tuple[str, str]] = []
        for i, item in enumerate(items):
            place = f"{name}[{i}]"
            word = self.as_text(item, place, "text")
            if word is None:
                continue
            if word in (other for _, other in found):
                self.wrong(place, f"'{short(word)}' is listed twice, remove one")
                continue
            found.append((place, word))
        return found
