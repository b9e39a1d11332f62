"""A loopback server that answers with whatever bytes it is told, and bodies with mistakes of every kind.

The mistakes are drawn from a seeded generator: a run can be repeated.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from typing import Any

from quantlytic_tests.vendors.loopback import Reply, serving

# What stands where something else was expected. Copied on use: a later mistake changes it in place.
ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**53, 2**63, -(2**70), 10**400, 0.1, -0.0, 1e308, 1e-320, math.nan, math.inf,
    "", "0", "-1", "NaN", "inf", "1e999", "1,5", "١٢", "text", "\ud800", "\x00", "2024-02-30", "2024-03-10 02:30:00",
    "9999-12-31 23:59:59", [], {}, [[]], [None], {"": None},
)  # fmt: skip


class Bodies:
    """Answers every question with `body`, whatever was asked. `url` is its address."""

    def __init__(self) -> None:
        self.body = b""
        self.url = ""

    @contextmanager
    def serving(self) -> Iterator[Bodies]:
        """Serve on a free port of 127.0.0.1 until the block ends."""
        with serving(lambda question: Reply(body=self.body)) as self.url:
            yield self


def spoilt(recorded: Any, random: Random) -> bytes:
    """A recorded JSON body with one to four mistakes in it: in its values, its shape or its bytes."""
    body = copy.deepcopy(recorded)
    for _ in range(random.randint(1, 4)):
        body = _one_mistake(body, random)
    text = json.dumps(body).encode("utf-8", "surrogatepass")
    kind = random.random()
    if kind < 0.05:
        return text[: random.randrange(len(text) + 1)]
    if kind < 0.1:
        at = random.randrange(max(1, len(text)))
        return text[:at] + bytes([random.randrange(256)]) + text[at + 1 :]
    return text


def _one_mistake(body: Any, random: Random) -> Any:
    """Replace, drop, double or move a node of the tree, chosen at random."""
    places = list(_places(body))
    if not places or random.random() < 0.02:
        return copy.deepcopy(random.choice(ODD))
    parent, key = random.choice(places)
    kind = random.randrange(5)
    if kind == 0:
        del parent[key]
    elif kind == 1 and isinstance(parent, list):
        parent.insert(key, copy.deepcopy(parent[key]))
    elif kind == 2 and isinstance(parent, list):
        random.shuffle(parent)
    elif kind == 3:
        parent[key] = copy.deepcopy(random.choice(places)[0])
    else:
        parent[key] = copy.deepcopy(random.choice(ODD))
    return body


def _places(node: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) of a tree, few of each long list: rows are alike."""
    if isinstance(node, dict):
        keys = list(node)
    elif isinstance(node, list):
        keys = sorted({0, 1, 2, len(node) // 2, len(node) - 1} & set(range(len(node))))
    else:
        return
    for key in keys:
        yield node, key
        yield from _places(node[key])
