"""Lake tables are read in tables/ and nowhere else; schemas/ knows nothing of the rest of the house."""

import ast
import re
from pathlib import Path

import quantlytic_assets
from quantlytic_assets.schemas.lake import TABLES

HOUSE = Path(quantlytic_assets.__file__).parent
_READS = re.compile(rf"\b(?:FROM|JOIN)\s+(?:lake\.)?(?:{'|'.join(map(re.escape, TABLES))})\b", re.IGNORECASE)


def modules(package: str = "") -> list[Path]:
    return sorted((HOUSE / package).rglob("*.py"))


def texts(path: Path) -> list[str]:
    """The string constants of a module, those in f-strings among them."""
    tree = ast.parse(path.read_text())
    return [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]


def test_no_other_package_selects_from_a_lake_table():
    found = [
        f"{path.relative_to(HOUSE)}: {text.strip()[:80]}"
        for path in modules()
        if path.relative_to(HOUSE).parts[0] not in ("tables", "schemas")
        for text in texts(path)
        # What a message tells people to type is theirs.
        if _READS.search(text) and "quantlytic sql" not in text
    ]
    assert found == []


def test_nobody_else_queries_the_lake():
    allowed = ("tables", "storage")
    found = [
        f"{path.relative_to(HOUSE)}:{number}"
        for path in modules()
        if path.relative_to(HOUSE).parts[0] not in allowed
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if re.search(r"\blake\.query\(", line)
    ]
    assert found == []


def test_the_declarations_import_only_the_type_of_a_time_stamp():
    wanted = {"quantlytic_assets.calendars.intervals"}
    # These write files for people and for dbt, and describe the columns of features as well.
    writers = {"dbt.py", "page.py", "generate.py"}
    for path in [path for path in modules("schemas") if path.name not in writers]:
        imported = {
            node.module
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("quantlytic_assets")
        }
        strange = {name for name in imported if not name.startswith("quantlytic_assets.schemas")} - wanted
        assert strange == set(), path.name


def test_trading_and_market_data_open_no_database():
    for path in (*modules("trading"), *modules("market_data")):
        assert not re.search(
            r"^\s*(?:from|import) (?:sqlalchemy|duckdb|quantlytic_assets\.storage)", path.read_text(), re.M
        )
