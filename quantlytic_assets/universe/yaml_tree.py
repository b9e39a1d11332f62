"""A YAML file as plain values, with the line and the text of each, and with what YAML itself finds wrong.

YAML 1.1, as most programs read it: `NO` is false and `1:30` a number. Which fields a universe has is in `declarations`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import ConstructorError
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from quantlytic_assets.universe.models import UniverseError

# Where a value stands: names of mappings and positions in lists, from the top.
Place = tuple[str | int, ...]

# The file needs six levels; more is a mistake, or an anchor that holds itself.
_DEEPEST = 12
_SCALARS = {"bool": "a truth value", "int": "a number", "float": "a number", "timestamp": "a date", "null": "nothing"}
_MERGE = "tag:yaml.org,2002:merge"


class Whole(int):
    """A whole number that knows how it was written: `000001` is a symbol that YAML reads as 1."""

    text: str


@dataclass
class Tree:
    """The file's values: dict with text keys, list, str, `Whole`, float, bool, date (times stay text) or None.

    `lines` has each value's line, the one of its name where it has a name; `texts` how each scalar was written;
    `mistakes` a sentence for each place that YAML rejects, whose value is None.
    """

    value: Any = None
    lines: dict[Place, int] = field(default_factory=dict)
    texts: dict[Place, str] = field(default_factory=dict)
    mistakes: list[tuple[Place, str]] = field(default_factory=list)
    rejected: set[Place] = field(default_factory=set)


def read_tree(path: Path) -> Tree:
    """The mapping that a YAML file holds.

    Raises `UniverseError` with one mistake for a file that can't be read at all: missing, not UTF-8, empty, no valid
    YAML, no mapping.
    """
    try:
        tree = _Reader(path.read_bytes().decode("utf-8-sig")).tree
    except FileNotFoundError:
        fault = "no such file; create it or point QUANTLYTIC_UNIVERSE at another one"
    except UnicodeDecodeError as error:
        fault = f"not UTF-8 text (byte {error.start}); save the file as UTF-8"
    except OSError as error:
        fault = f"can't be read ({error.strerror}); it should be a YAML file"
    except YAMLError as error:
        fault = _syntax_fault(error)
    except RecursionError:
        fault = "nested too deeply to be read; a universe has six levels"
    else:
        if isinstance(tree.value, dict):
            return tree
        if tree.value is None:
            fault = "the file is empty; it should hold `datasets:` and, if you like, `strategies:`"
        else:
            fault = f"holds {describe(tree.value, tree.texts.get((), ''))}; it should be a mapping with `datasets:`"
    raise UniverseError(path, [f"{path}: {fault}"])


def _syntax_fault(error: YAMLError) -> str:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "unreadable"
    if mark is None:
        return f"not valid YAML ({problem}); correct the syntax"
    return f"line {mark.line + 1}, column {mark.column + 1}: not valid YAML ({problem}); correct the syntax there"


class _Reader:
    """Turns YAML nodes into a `Tree`, noting what YAML would reject or silently drop."""

    def __init__(self, text: str):
        yaml = YAML(typ="safe", pure=True)
        yaml.version = (1, 1)
        self.tree = Tree()
        root = yaml.compose(text)
        self._constructor = yaml.constructor
        if root is not None:
            self.tree.value = self._read(root, ())

    def _wrong(self, place: Place, said: str) -> None:
        self.tree.mistakes.append((place, said))

    def _read(self, node: Node, place: Place) -> Any:
        self.tree.lines.setdefault(place, node.start_mark.line + 1)
        if len(place) > _DEEPEST:
            self.tree.rejected.add(place)
            return self._wrong(place, "nested too deeply; a universe has six levels")
        if isinstance(node, MappingNode):
            return self._mapping(node, place)
        if isinstance(node, SequenceNode):
            return [self._read(item, (*place, i)) for i, item in enumerate(node.value)]
        return self._scalar(node, place)  # type: ignore[arg-type]

    def _mapping(self, node: MappingNode, place: Place) -> dict[str, Any]:
        entries = self._entries(node, place)
        for name, (line, _) in entries.items():
            self.tree.lines[*place, name] = line
        return {name: self._read(value, (*place, name)) for name, (_, value) in entries.items()}

    def _entries(self, node: MappingNode, place: Place) -> dict[str, tuple[int, Node]]:
        """Line and node by name; those merged from anchors (`<<`) come first and may be overridden."""
        own: dict[str, tuple[int, Node]] = {}
        merged: dict[str, tuple[int, Node]] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if key.tag == _MERGE:
                self.tree.lines[*place, "<<"] = line
                for part in value.value if isinstance(value, SequenceNode) else [value]:
                    if isinstance(part, MappingNode):
                        merged = self._entries(part, place) | merged
                    else:
                        self._wrong((*place, "<<"), "merges something else than a mapping, write `<<: *anchor`")
            elif not isinstance(key, ScalarNode):
                self._wrong(place, f"line {line} has a key that is not text, write a plain name")
            else:
                if key.value in own:
                    twice = f"given twice (lines {own[key.value][0]} and {line}), keep one of them"
                    self._wrong((*place, key.value), twice)
                own[key.value] = line, value
        return merged | own

    def _scalar(self, node: ScalarNode, place: Place) -> Any:
        kind = str(node.tag).rpartition(":")[2]
        self.tree.texts[place] = node.value
        try:
            value = self._constructor.construct_object(node, deep=True)
        except (ValueError, OverflowError, ConstructorError) as error:
            self.tree.rejected.add(place)
            if kind == "timestamp":
                return self._wrong(place, f"'{short(node.value)}' is not a date ({error}), write one as YYYY-MM-DD")
            if kind in _SCALARS:
                said = f"'{short(node.value)}' can't be read as {_SCALARS[kind]}, correct it or quote it"
            else:
                said = f"'{short(node.value)}' has the unknown type {node.tag}, write a plain value"
            return self._wrong(place, said)
        if type(value) is int:
            value = Whole(value)
            value.text = node.value
        # YAML drops the zone of some notations.
        return node.value if isinstance(value, datetime) else value


def short(text: str) -> str:
    """A value's text on one line and no longer than a message bears."""
    line = " ".join(text.split())
    return line if len(line) <= 60 else line[:57] + "..."


def describe(value: Any, text: str) -> str:
    """What a value of a tree is, in words for a message."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if value is None:
        return "nothing"
    return f"'{short(text)}'" + (f", which YAML reads as {str(value).lower()}" if isinstance(value, bool) else "")
