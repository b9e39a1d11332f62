"""Whatever a file holds, it is read or rejected with a reason and a remedy; no row is lost, nothing else is raised."""

import random
from dataclasses import replace

import pytest

from quantlytic_assets.imports.action_files import read_actions
from quantlytic_assets.imports.options import ImportOptions, OptionError
from quantlytic_assets.imports.tables import read_bars
from quantlytic_assets.imports.times import StructuralFault
from quantlytic_assets.universe.models import Instrument
from quantlytic_tests.imports.test_shapes import SAMPLES, SYMBOLS
from quantlytic_tests.imports.test_tables import NOW, dataset

PIECES = (
    b",",
    b";",
    b'"',
    b"\n",
    b"\r",
    b"<",
    b">",
    b"[",
    b"]",
    b"{",
    b"0",
    b"-",
    b"/",
    b".",
    b"e9",
    b"\xff",
    b"\xe9",
    b"nan",
)
PIECES += (
    b"9" * 400,
    b"x" * 140_000,
    b"31/12/2024",
    b"Symbol",
    b"\xef\xbb\xbf",
    b"\t",
    b"|",
    b"sep=;\n",
    b"#",
    b"null",
)
OPTIONS = (
    ImportOptions(),
    ImportOptions(decimal=","),
    ImportOptions(header=False),
    ImportOptions(date_format="%d/%m/%Y"),
    ImportOptions(symbol_column="symbol"),
)


def mutated(content: bytes, chance: random.Random) -> bytes:
    """The content with some pieces put in, taken out or moved."""
    for _ in range(chance.randint(1, 4)):
        at, length = chance.randrange(len(content) + 1), chance.choice((0, 0, 1, 5, 60))
        content = content[:at] + chance.choice((*PIECES, b"", content[at : at + 40])) + content[at + length :]
    return content


@pytest.mark.parametrize("name", sorted(path.name for path in SAMPLES.iterdir()))
def test_a_damaged_file_is_read_or_rejected_with_what_to_do(name, tmp_path):
    chance = random.Random(name)
    content = (SAMPLES / name).read_bytes()
    path = tmp_path / name
    for _ in range(60):
        path.write_bytes(mutated(content, chance))
        interval, options, symbol = (
            chance.choice(("1d", "5m", "1h")),
            chance.choice(OPTIONS),
            chance.choice((None, "AAPL")),
        )
        calendar = "24/7" if interval == "1h" else "XNYS"
        mine = replace(dataset(calendar, interval), symbols=tuple(map(Instrument, SYMBOLS)))
        try:
            found = read_bars(path, dataset=mine, symbol=symbol, fetched_at=NOW, options=options)
        except OptionError:
            continue
        except StructuralFault as fault:
            assert fault.reason and fault.remedy
            continue
        assert found.read == len(found.bars) + len(found.rejected)
        assert found.rejected["reason"].null_count() == 0
        assert found.bars.select("symbol", "open_time", "close_time").null_count().sum_horizontal().item() == 0


def test_a_damaged_file_of_corporate_actions_is_read_or_rejected(tmp_path):
    chance = random.Random("actions")
    content = (
        b'symbol,date,kind,value\nAAPL,2014-06-09,split,7\n"FB",2022-06-09,rename,META\nA,2014-08-07,dividend,0.47\n'
    )
    path = tmp_path / "actions.csv"
    for _ in range(60):
        path.write_bytes(mutated(content, chance))
        try:
            found = read_actions(path, NOW)
        except StructuralFault as fault:
            assert fault.reason and fault.remedy
            continue
        assert found.read == len(found.actions) + len(found.rejected)
