"""What dbt has parsed of the project, for targets of tests: parsing it takes two seconds of a core."""

import shutil
from pathlib import Path

from quantlytic_assets.assets.features import dbt_project

_PARSED = "partial_parse.msgpack"


def give_parsed(target: Path) -> None:
    """Put there what was parsed before, as a run of the feature assets does; what dbt has left there stays."""
    if not (target / _PARSED).exists():
        target.mkdir(parents=True, exist_ok=True)
        shutil.copy(dbt_project().manifest_path.with_name(_PARSED), target)
