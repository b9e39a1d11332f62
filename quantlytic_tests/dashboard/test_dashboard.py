"""The dashboard in a headless browser: what moves, what is read aloud, what a phone shows, what the page may load."""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from quantlytic_assets.api.app import make_app
from quantlytic_assets.resources import make_resources
from quantlytic_assets.serving.hot_store import HotStore
from quantlytic_assets.settings import CHECKOUT, Settings
from quantlytic_tests.dashboard.chromium import Page, chromium
from quantlytic_tests.dashboard.market import END, fill, put_bar, put_price, universe_in
from quantlytic_tests.push.desk import serving

FILES = CHECKOUT / "quantlytic_assets" / "api" / "dashboard_files"
LOADED = (
    "document.querySelectorAll('#prices tbody tr').length === 5"
    " && document.querySelectorAll('#gaps tbody tr').length === 5"
    " && document.querySelectorAll('#orders tbody tr').length === 12 && document.querySelector('#legend b') !== null"
    " && document.getElementById('connection').dataset.state === 'live'"
)
CHOSEN = "dataset=crypto_1m&symbol=BTC-USD&interval=1m&strategy=cross&features=sma_20,sma_50,rsi_14"
# The charts' pixels.
DRAWN = "[...document.querySelectorAll('#price canvas')].map((one) => one.toDataURL()).join('')"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with chromium(tmp_path_factory.mktemp("chromium")) as page:
        yield page


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HotStore]:
    made = HotStore(tmp_path_factory.mktemp("installation") / "hot")
    fill(made)
    yield made
    made.close()


@pytest.fixture(scope="module")
def address(store: HotStore) -> Iterator[str]:
    home = store.path.parent
    with serving(make_app(make_resources(Settings(universe=universe_in(home), home=home)))) as (port, _):
        yield f"http://127.0.0.1:{port}/"


def opened(browser: Page, address: str, visit: str, **window) -> Page:
    """The page, loaded and live; `visit` makes it a new one."""
    browser.said.clear()
    browser.open(f"{address}?{visit}#{CHOSEN}", **window)
    browser.wait_for(f"location.search === '?{visit}' && {LOADED}")
    return browser


def test_candles_move_while_trades_and_bars_come_in(browser: Page, address: str, store: HotStore):
    page = opened(browser, address, "moves")
    closes = "document.querySelector('#bars tbody tr td:nth-child(5)').textContent"
    newest = "document.querySelector('#bars tbody tr td').textContent"
    assert page.value(newest) == "2026-01-20 11:59"
    before = page.value(DRAWN)
    with store.write() as to:
        put_price(to, "BTC-USD", 61_234.5, END + timedelta(seconds=20))
    page.wait_for(f"{newest} === '2026-01-20 12:00' && {closes} === '61,234.50'")
    with_trade = page.value(DRAWN)
    assert with_trade != before
    with store.write() as to:
        put_price(to, "BTC-USD", 61_999.25, END + timedelta(seconds=30))
    page.wait_for(f"{closes} === '61,999.25' && document.getElementById('last').textContent === '61,999.25'")
    assert page.value(DRAWN) not in (before, with_trade)
    with store.write() as to:
        put_bar(to, "BTC-USD", END, 61_500.75)
        put_bar(to, "BTC-USD", END + timedelta(minutes=1), 61_400.25)
    page.wait_for(f"{newest} === '2026-01-20 12:01' && {closes} === '61,400.25'")
    second = "document.querySelector('#bars tbody tr:nth-child(2) td:nth-child(5)').textContent"
    assert page.value(second) == "61,500.75"
    assert page.said == []


def test_an_account_is_shown_with_its_curve_and_whole_quantities_without_decimals(browser: Page, address: str):
    page = opened(browser, address, "account")
    page.wait_for("document.querySelectorAll('#equity-table tbody tr').length === 100")
    assert not page.value("document.getElementById('equity').hidden")
    assert page.value("document.getElementById('equity-empty').hidden")
    assert page.value("document.querySelector('#equity-table tbody td').textContent") == "2026-01-19"
    quantities = "[...document.querySelectorAll('#positions tbody td:nth-child(2)')].map((one) => one.textContent)"
    assert page.value(quantities) == ["0.35", "120"]
    assert page.value("document.getElementById('features-count').textContent") == "(3)"
    page.open(f"{address}?no-strategy#dataset=equities_1d&symbol=AAPL&interval=1d")
    page.wait_for("document.getElementById('equity-empty')?.textContent === 'No strategy trades this dataset.'")


# Has the page's sockets in `sockets`; while `refuse` is set they go where nobody answers.
SOCKETS = """
window.sockets = [];
window.WebSocket = class extends WebSocket {
  constructor(address) {
    super(window.refuse ? address + "/nowhere" : address);
    window.sockets.push(this);
  }
};
"""


def test_a_revised_bar_and_a_cut_connection(browser: Page, address: str, store: HotStore):
    script = browser.call("Page.addScriptToEvaluateOnNewDocument", source=SOCKETS)
    page = opened(browser, address, "cut")
    browser.call("Page.removeScriptToEvaluateOnNewDocument", **script)
    rows = "[...document.querySelectorAll('#bars tbody tr')].map((row) => row.textContent)"
    count = page.value(f"{rows}.length")
    with store.write() as to:
        put_bar(to, "BTC-USD", END - timedelta(minutes=5), 60_606.5)
    page.wait_for(f"{rows}.some((row) => row.startsWith('2026-01-20 11:55') && row.includes('60,606.50'))")
    assert page.value(f"{rows}.length") == count
    with store.write() as to:
        gone = b'{"t":"2026-01-20T11:55:00Z","deleted":true,"revision":2,"final":true}'
        to.tell(("bars", "crypto_1m", "1m", "BTC-USD"), gone)
    page.wait_for(f"!{rows}.some((row) => row.startsWith('2026-01-20 11:55'))")
    page.value("window.refuse = true; window.sockets.at(-1).close()")
    page.wait_for("document.getElementById('connection').dataset.state === 'lost'")
    with store.write() as to:
        for minute in (2, 3, 4):
            put_bar(to, "BTC-USD", END + timedelta(minutes=minute), 60_001.5 + minute)
    page.value("window.refuse = false")
    page.wait_for(f"{rows}[0].startsWith('2026-01-20 12:04') && {rows}[2].includes('60,003.50')")
    page.wait_for("document.getElementById('connection').dataset.state === 'live'")
    assert page.value("window.sockets.length") >= 2


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 375])
def test_no_serious_fault_of_accessibility(browser: Page, address: str, width: int, dark: bool):
    sys.path.insert(0, str(CHECKOUT / "scripts"))
    try:
        from local_services.software import axe
    finally:
        sys.path.remove(str(CHECKOUT / "scripts"))
    page = opened(browser, address, f"axe-{width}-{dark}", width=width, dark=dark)
    page.value("for (const one of document.querySelectorAll('.card details')) one.open = true")
    page.value(axe().read_text() + "; null")
    found = page.value(
        "axe.run(document).then(({violations, passes}) => ({passed: passes.length, faults: violations.map("
        "(one) => [one.impact, one.id, one.nodes.map((node) => node.target.join(' ')).slice(0, 5)])}))"
    )
    assert found["passed"] > 20
    assert [one for one in found["faults"] if one[0] in ("serious", "critical")] == []


def test_a_phone_shows_it_without_scrolling_sideways(browser: Page, address: str):
    page = opened(browser, address, "phone", width=375, height=800)
    assert page.value("document.documentElement.scrollWidth") == 375
    page.value("document.getElementById('features-box').open = true")
    assert page.value("document.documentElement.scrollWidth") == 375


def test_a_keyboard_is_enough(browser: Page, address: str):
    page = opened(browser, address, "keys")
    page.value("document.body.focus()")
    reached = []
    for _ in range(24):
        page.press("Tab")
        reached.append(
            page.value("document.activeElement.id || document.activeElement.textContent.trim().slice(0, 30)")
        )
    assert reached[0] == "Skip to the charts"
    for name in ("pages", "key", "theme", "dataset", "symbol", "interval", "strategy"):
        assert name in reached, reached
    page.value("document.getElementById('theme').focus()")
    page.press("Enter")
    assert page.value("document.documentElement.dataset.theme") == "dark"
    page.press("Enter")
    page.value("document.getElementById('symbol').focus()")
    page.press("ArrowDown")
    page.wait_for("document.getElementById('price-title').textContent === 'ETH-USD, 1m'")
    page.wait_for("document.querySelector('#bars tbody tr td:nth-child(5)').textContent.startsWith('3,')")
    assert "symbol=ETH-USD" in page.value("location.hash")


def test_the_policy_lets_nothing_else_in(browser: Page, address: str):
    page = opened(browser, address, "policy")
    assert page.said == []
    answer = page.value(f"fetch('{address}').then((one) => one.headers.get('content-security-policy'))")
    assert "default-src 'none'" in answer and "unsafe" not in answer
    page.value(
        "{const one = document.createElement('script'); one.textContent = 'window.hurt = 1'; document.body.append(one)}"
    )
    assert page.value("window.hurt") is None
    text = (FILES / "index.html").read_text()
    assert re.findall(r"<script(?![^>]*src=)|\son\w+=|\sstyle=", text) == []


def test_files_of_others_are_those_that_the_page_about_them_says():
    said = (FILES / "vendor" / "SOURCES.md").read_text()
    library = FILES / "vendor" / "lightweight-charts.standalone.production.mjs"
    assert hashlib.sha256(library.read_bytes()).hexdigest() in said
    # The charts make one style element, which the policy allows by its content.
    style = re.search(r'innerText="(a#tv-attr-logo[^"]*)"', library.read_text())
    assert style is not None
    from base64 import b64encode

    from quantlytic_assets.api.dashboard import HEADERS

    assert b64encode(hashlib.sha256(style[1].encode()).digest()).decode() in HEADERS["content-security-policy"]


def test_every_file_is_packaged():
    patterns = re.findall(r'"(api/dashboard_files/[^"]*)"', (CHECKOUT / "setup.py").read_text())
    package = CHECKOUT / "quantlytic_assets"
    packaged = {path for pattern in patterns for path in package.glob(pattern) if path.is_file()}
    assert packaged == {path for path in FILES.rglob("*") if path.is_file()}


def test_no_file_beside_its_own_is_served(address: str):
    import urllib.error
    import urllib.request

    for name in ("vendor/SOURCES.md", "../dashboard.py", "%2e%2e/dashboard.py", "js/none.js"):
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{address}dashboard/files/{name}")
    assert Path(FILES / "index.html").exists()
