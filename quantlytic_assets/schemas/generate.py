"""`make generate`: the files that follow from the declarations of the tables, written where they belong."""

from __future__ import annotations

from pathlib import Path

from quantlytic_assets.schemas.dbt import models_yaml, sources_yaml
from quantlytic_assets.schemas.page import tables_page

_CHECKOUT = Path(__file__).parents[2]


def generated(checkout: Path = _CHECKOUT) -> dict[Path, str]:
    """Path in the checkout to the text that belongs there."""
    models = checkout / "dbt_project" / "models"
    features = models / "features" / "features.yml"
    return {
        models / "sources.yml": sources_yaml(),
        features: models_yaml(features.read_text()),
        checkout / "docs" / "tables.md": tables_page(),
    }


def main() -> None:
    """Write the files that differ and name them."""
    for path, text in generated().items():
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
            print(f"wrote {path.relative_to(_CHECKOUT)}")


if __name__ == "__main__":
    main()
