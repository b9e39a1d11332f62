"""Which files are meant: a file, all files of a folder, or a pattern, whose `{symbol}` says whose a file is."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_SYMBOL = "{symbol}"


@dataclass(frozen=True)
class FoundFile:
    """A file, and what its path says of its symbol; None where it says nothing."""

    path: Path
    symbol: str | None = None


def find_files(wanted: Iterable[str]) -> list[FoundFile]:
    """The files of paths, folders (with all below them) and patterns, each once. Hidden ones are left out.

    Raises `FileNotFoundError` for what matches no file.
    """
    found: dict[Path, FoundFile] = {}
    for text in wanted:
        files = _matching(text)
        if not files:
            raise FileNotFoundError(f"{text} is not a file" if not _is_pattern(text) else f"no file matches {text}")
        for one in files:
            found.setdefault(one.path, one)
    return list(found.values())


def _is_pattern(text: str) -> bool:
    return _SYMBOL in text or any(sign in text for sign in "*?[")


def _matching(text: str) -> list[FoundFile]:
    path = Path(text)
    if path.is_file():
        return [FoundFile(path)]
    if path.is_dir():
        below = sorted(one for one in path.rglob("*") if one.is_file())
        return [FoundFile(one) for one in below if not _hidden(one.relative_to(path))]
    if not _is_pattern(text):
        return []
    files = sorted(Path(one) for one in glob.glob(text.replace(_SYMBOL, "*"), recursive=True))  # noqa: PTH207 - a pattern may be absolute
    if _SYMBOL not in text:
        return [FoundFile(one) for one in files if one.is_file()]
    pieces = [_as_regex(piece) for piece in text.split(_SYMBOL)]
    # Where it stands twice it is the same symbol twice.
    pattern = re.compile(pieces[0] + "([^/]+?)" + r"\1".join(pieces[1:]))
    return [
        FoundFile(one, told[1]) for one in files if one.is_file() and (told := pattern.fullmatch(str(one))) is not None
    ]


def _as_regex(piece: str) -> str:
    """A part of a pattern as a regular expression: `*` and `?` stay within a folder, `**` does not."""
    signs = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return re.sub(r"\*\*/|\*\*|\*|\?|[^*?]+", lambda found: signs.get(found[0]) or re.escape(found[0]), piece)


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)
