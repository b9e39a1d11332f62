"""What a shell completes: names of the universe, read without checking it and without loading anything heavy."""

from __future__ import annotations

import os
from pathlib import Path


def complete_dataset(incomplete: str) -> list[str]:
    """Datasets of the universe that begin so."""
    return _names(("datasets",), incomplete)


def complete_dataset_or_strategy(incomplete: str) -> list[str]:
    """Datasets and strategies of the universe that begin so."""
    return _names(("datasets", "strategies"), incomplete)


def complete_strategy(incomplete: str) -> list[str]:
    """Strategies of the universe that begin so."""
    return _names(("strategies",), incomplete)


def _names(sections: tuple[str, ...], incomplete: str) -> list[str]:
    from ruamel.yaml import YAML

    # As in `settings`, which takes longer to load than a person waits for a completion.
    path = os.environ.get("QUANTLYTIC_UNIVERSE") or Path(__file__).resolve().parents[2] / "universe.yaml"
    try:
        root = YAML(typ="safe", pure=True).compose(Path(path).read_text("utf-8-sig"))
        found = [
            name.value
            for section, declared in root.value
            if section.value in sections and isinstance(declared.value, list)
            for name, _ in declared.value
        ]
    except Exception:
        # A shell has no place for a mistake of the file; every command names them.
        return []
    return [name for name in found if isinstance(name, str) and name.startswith(incomplete)]
