"""Alert rules and dashboard ask for figures that `quantlytic metrics` serves, under the labels it serves them with."""

import json
import re

import pytest
import yaml

from quantlytic_assets.api.metrics import REGISTRY
from quantlytic_assets.commands.installation import Installation
from quantlytic_assets.commands.metrics import parts
from quantlytic_assets.observability.collector import PartsCollector
from quantlytic_assets.settings import CHECKOUT
from quantlytic_tests.deployment.promql import result_labels
from quantlytic_tests.deployment.stack import compose, filled

MONITORING = CHECKOUT / "deploy" / "monitoring"
DASHBOARD = MONITORING / "grafana" / "dashboards" / "quantlytic.json"


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """Name of each sample that the exporter can serve, to its labels."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUANTLYTIC_HOME", str(tmp_path_factory.mktemp("metrics")))
        # Set by the instance; put back with the rest.
        patch.setenv("DAGSTER_HOME", "")
        for name in ("DAGSTER_DISABLE_TELEMETRY", "QUANTLYTIC_UNIVERSE"):
            patch.setenv(name, "")
        installation = Installation()
        failed = []
        collector = PartsCollector(parts(installation, dict), lambda part, error: failed.append((part, error)))
        for name in collector.parts:
            collector.refresh(name)
        assert failed == []
        families = list(collector.collect())
        installation.instance.dispose()
    found = {"up": frozenset({"job", "instance"})}
    for family in families:
        name = f"{family.name}_total" if family.type == "counter" else family.name
        # Prometheus adds where it read them, and would rename labels of ours that are called like its own.
        assert not {"job", "instance"} & set(family._labelnames), name
        if family.type == "histogram":
            name = f"{name}_bucket"
        labels = frozenset({"le"} if family.type == "histogram" else ())
        found[name] = labels | frozenset(family._labelnames) | {"job", "instance"}
        assert re.fullmatch(r"quantlytic_[a-z][a-z0-9_]*", name) and family.documentation, name
    # The API serves its own, at /metrics.
    for family in REGISTRY.collect():
        for ending in ("bucket", "count", "sum"):
            found[f"{family.name}_{ending}"] = frozenset({"method", "route", "status", "job", "instance"})
        found[f"{family.name}_bucket"] |= {"le"}
    return found


def rules():
    groups = yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_an_alert_asks_for_what_is_served_and_tells_only_what_it_knows(rule, served):
    labels = result_labels(rule["expr"], served)
    assert re.search(r"[<>]|==", rule["expr"]), "an alert without a condition is always on"
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    text = " ".join(rule["annotations"].values())
    assert set(rule["annotations"]) == {"summary", "description"}
    assert set(re.findall(r"\$labels\.(\w+)", text)) <= labels
    # What it tells people to run exists.
    for command in re.findall(r"`quantlytic (\w+)", text):
        assert command in ("metrics", "doctor", "gaps", "backfill", "feed", "status")


def test_alerts_have_names_of_their_own():
    names = [rule["alert"] for rule in rules()]
    assert len(set(names)) == len(names) >= 10


def panels():
    return json.loads(DASHBOARD.read_text())["panels"]


@pytest.mark.parametrize("panel", panels(), ids=lambda panel: panel["title"])
def test_a_panel_asks_for_what_is_served(panel, served):
    for target in panel["targets"]:
        labels = result_labels(target["expr"].replace("$dataset", ".*"), served)
        assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= labels
        assert target["datasource"] == panel["datasource"] == {"type": "prometheus", "uid": "prometheus"}


def test_every_figure_is_shown_or_watched(served):
    asked = " ".join([rule["expr"] for rule in rules()] + [one["expr"] for p in panels() for one in p["targets"]])
    unseen = {name for name in served if not re.search(rf"\b{name}\b", asked)}
    # Told beside others that are shown.
    assert unseen == {
        "quantlytic_part_read_seconds",
        "quantlytic_bus_end_offset",
        "quantlytic_dead_letters",
        "quantlytic_landed_bytes_total",
        "quantlytic_clean_bars",
        "quantlytic_api_request_seconds_sum",
    }


def test_the_dashboard_is_whole(served):
    dashboard = json.loads(DASHBOARD.read_text())
    assert len({panel["id"] for panel in panels()}) == len(panels())
    cells = [
        (x, y)
        for panel in panels()
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(cells)) == len(cells) and max(x for x, _ in cells) < 24
    (variable,) = dashboard["templating"]["list"]
    metric, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]["query"]).groups()
    assert label in served[metric] and variable["name"] == "dataset"


def test_grafana_and_prometheus_find_each_other_their_files_and_the_exporter():
    services = compose(filled())["services"]
    prometheus = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
    targets = {one["job_name"]: one["static_configs"][0]["targets"] for one in prometheus["scrape_configs"]}
    host, _, port = targets["quantlytic"][0].partition(":")
    assert services[host]["command"][-1] == port
    mounted = {volume.split(":")[1]: volume.split(":")[0] for volume in services["prometheus"]["volumes"]}
    for file in [*prometheus["rule_files"], "/etc/prometheus/prometheus.yml"]:
        assert (CHECKOUT / mounted[file]).is_file()
    provisioning = MONITORING / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"]
    assert source["uid"] == "prometheus" and source["url"] == "http://prometheus:9090"
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "quantlytic.yml").read_text())["providers"]
    mounted = {volume.split(":")[1]: volume.split(":")[0] for volume in services["grafana"]["volumes"]}
    assert (CHECKOUT / mounted[provider["options"]["path"]]).resolve() == DASHBOARD.parent
