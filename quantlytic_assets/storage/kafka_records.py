"""Records of Kafka as `Bus` gives them, whichever client has fetched them.

A whole batch at a time, because this is done for every record that is landed: keys and headers are few and repeat, and
each is decoded once a batch, not once a record.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence

from quantlytic_assets.storage.bus import Records

Header = tuple[tuple[str, bytes | None], ...]


def append(
    records: Records,
    offsets: Iterable[int],
    values: Iterable[bytes | None],
    keys: Sequence[bytes | None],
    heads: Sequence[Sequence[tuple[str, bytes | None]]],
    known: dict[Header, str],
) -> None:
    """Add a batch, one entry a record in each argument. known: texts of headers so far, to which new ones are added."""
    records.offsets.extend(offsets)
    records.values.extend([b"" if one is None else one for one in values])
    names = {key: key if key is None else key.decode("utf-8", "replace") for key in set(keys)}
    records.keys.extend([names[key] for key in keys])
    if heads.count(heads[0]) == len(heads):
        records.headers.extend([_header_text(tuple(heads[0]), known)] * len(heads))
    else:
        records.headers.extend([_header_text(tuple(head), known) for head in heads])


def append_values(records: Records, offsets: Sequence[int], values: Iterable[bytes | None]) -> None:
    """Add a batch of which neither keys nor headers are wanted."""
    records.offsets.extend(offsets)
    records.values.extend([b"" if one is None else one for one in values])
    records.keys.extend([None] * len(offsets))
    records.headers.extend([""] * len(offsets))


def _header_text(head: Header, known: dict[Header, str]) -> str:
    text = known.get(head)
    if text is None:
        texts = {key: (value or b"").decode("utf-8", "backslashreplace") for key, value in head}
        text = known[head] = sys.intern(json.dumps(texts, sort_keys=True))
    return text
