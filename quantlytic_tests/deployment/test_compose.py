"""docker-compose.yml, checked without Docker: by the specification's schema, and each name in it against the code."""

import json
import re
import shlex

import jsonschema
import pytest
import yaml
from click.testing import CliRunner
from typer.main import get_command

from quantlytic_assets.cli import app
from quantlytic_assets.settings import CHECKOUT, Settings, load_settings
from quantlytic_tests.deployment.stack import COMPOSE, compose, example, filled, variables

SECRET = re.compile(r"PASSWORD|SECRET|TOKEN|API_KEY")
# Without a vendor's key that vendor is not asked, and without what tokens are signed with there are none.
OPTIONAL = ("ALPHAVANTAGE_API_KEY", "TWELVEDATA_API_KEY", "QUANTLYTIC_API_SECRET")
# What other programs read, by who reads it.
OTHERS = {
    "KAFKA_": ("kafka",),
    "MINIO_": ("minio",),
    "POSTGRES_": ("postgres",),
    "GF_": ("grafana",),
    "MLFLOW_": ("mlflow",),
}
READ_BY_DAGSTER = ("DAGSTER_EVENT_BATCH_SIZE", "DAGSTER_GRPC_TIMEOUT_SECONDS", "DAGSTER_GRPC_SHUTDOWN_GRACE_PERIOD")
OURS = ("migrate", "setup", "mlflow", "code", "webserver", "daemon", "metrics", "pages", "api", "feed", "live")


@pytest.fixture(scope="module")
def services():
    return compose(filled())["services"]


def words(command):
    return shlex.split(command) if isinstance(command, str) else [str(word) for word in command]


def test_it_follows_the_specification():
    schema = json.loads((CHECKOUT / "quantlytic_tests" / "deployment" / "compose-spec.json").read_text())
    jsonschema.validate(compose(filled()), schema)


def test_it_starts_nothing_without_the_passwords():
    for name in example():
        if name != "AWS_ACCESS_KEY_ID":
            assert example()[name] == "", f"{name} has a value in .env.example"
        with pytest.raises(KeyError, match=name):
            compose({key: value for key, value in filled().items() if key != name})


def test_no_secret_has_a_default_or_stands_in_the_file():
    # Without any other secret nothing starts.
    for name, kind, default in variables(COMPOSE.read_text()):
        needed = SECRET.search(name) and name not in OPTIONAL
        assert not needed or kind == "?", f"{name} may be left out"
        assert name not in OPTIONAL or default == ""
    for service in compose()["services"].values():
        for name, value in (service.get("environment") or {}).items():
            assert not SECRET.search(name) or re.fullmatch(r"\$\{\w+:(\?[^}]+|-)\}", str(value)), name


def test_every_variable_is_explained_in_the_example_and_the_other_way_round():
    used = {name for name, *_ in variables(COMPOSE.read_text())}
    text = (CHECKOUT / ".env.example").read_text()
    told = set(re.findall(r"^#?([A-Z][A-Z0-9_]+)=", text, re.MULTILINE))
    assert used <= told
    # The rest is for programs outside of Docker.
    assert told - used <= {"QUANTLYTIC_PROFILE", "AWS_ENDPOINT_URL"}
    defaults = {name: default for name, kind, default in variables(COMPOSE.read_text()) if kind == "-"}
    for name, value in re.findall(r"^#([A-Z0-9_]+)=(\S*)$", text, re.MULTILINE):
        assert name not in defaults or defaults[name] == value, name


def test_images_are_pinned(services):
    for name, service in services.items():
        image, _, tag = service["image"].rpartition(":")
        assert image and re.search(r"\d+\.\d+|RELEASE\.\d{4}", tag), f"{name}: {service['image']}"
        assert (name in OURS) == ("build" in service)


def test_ports_are_published_on_loopback_only(services):
    published = []
    for service in services.values():
        for port in service.get("ports", []):
            host, outside, _ = port.rsplit(":", 2)
            assert host == "127.0.0.1", port
            published.append(outside)
        assert service.get("network_mode") is None and not service.get("privileged")
    assert len(published) == len(set(published)) >= 8


def test_what_stands_behind_a_port_is_told_to_listen_on_it(services):
    for name, service in services.items():
        told = " ".join([*words(service.get("command", "")), *map(str, (service.get("environment") or {}).values())])
        for port in service.get("ports", []):
            inside = port.rsplit(":", 1)[1]
            by_itself = {"postgres": "5432", "prometheus": "9090", "grafana": "3000"}
            assert inside in re.findall(r"\d+", told) or by_itself.get(name) == inside, f"{name} {inside}"


def test_who_waits_for_whom_can_be_waited_for(services):
    for name, service in services.items():
        for other, how in service.get("depends_on", {}).items():
            if how["condition"] == "service_healthy":
                assert "healthcheck" in services[other], f"{name} waits for {other}"
            else:
                assert how["condition"] == "service_completed_successfully" and services[other]["restart"] == "no"
        ends = service["restart"] == "no"
        assert ends or service["restart"] == "unless-stopped"
        assert ends or name in ("feed", "live") or "healthcheck" in service, name


def test_who_opens_the_hot_store_has_the_machine_s_process_ids(services):
    # LMDB refuses a reader with the process id of one in another container.
    for name in OURS:
        service, opens = services[name], name in ("code", "metrics", "api", "live")
        assert (service.get("pid"), service["init"]) == (("host", False) if opens else (None, True)), name
        assert not opens or "data:/var/lib/quantlytic" in service["volumes"]


def test_the_api_asks_who_is_there_and_is_linked_to_as_a_browser_reaches_it(services, monkeypatch):
    for variable, value in services["api"]["environment"].items():
        monkeypatch.setenv(variable, value)
    settings = load_settings()
    assert settings.api_host == "0.0.0.0" and settings.api_authenticated and settings.api_secret is None
    (published,) = services["api"]["ports"]
    assert settings.dashboard == f"http://{published.rsplit(':', 1)[0]}"
    assert services["code"]["environment"]["QUANTLYTIC_API_URL"] == settings.dashboard


def test_volumes_are_declared_or_files_of_the_checkout(services):
    declared = compose()["volumes"]
    for service in services.values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("./"):
                assert (CHECKOUT / source).exists() and volume.endswith(":ro"), volume
            else:
                assert source in declared, volume


def test_every_variable_given_is_read_by_somebody(services, monkeypatch):
    aliases = {
        "AWS_ENDPOINT_URL",
        "AWS_REGION",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "ALPHAVANTAGE_API_KEY",
        "TWELVEDATA_API_KEY",
    }
    known = aliases | {f"QUANTLYTIC_{name.upper()}" for name in Settings.model_fields} | {"QUANTLYTIC_PAGES_PORT"}
    instance = set(re.findall(r"env: (\w+)", (CHECKOUT / "deploy" / "dagster.services.yaml").read_text()))
    for name, service in services.items():
        for variable in service.get("environment") or {}:
            if name not in OURS:
                if name == "postgres" and variable == "QUANTLYTIC_POSTGRES_PASSWORD":
                    assert f"${variable}" in (CHECKOUT / "deploy" / "postgres" / "make-role.sh").read_text()
                elif name == "buckets":
                    assert f"${variable}" in " ".join(service["command"])
                else:
                    assert any(variable.startswith(start) and name in who for start, who in OTHERS.items()), variable
                continue
            assert (
                variable in known | instance
                or variable in READ_BY_DAGSTER
                or (name == "mlflow" and variable.startswith("MLFLOW_"))
            ), f"{name}: {variable}"
    for name in ("code", "webserver", "daemon"):
        assert instance - {"DAGSTER_HOME"} <= set(services[name]["environment"])
    for variable, value in services["code"]["environment"].items():
        monkeypatch.setenv(variable, value)
    settings = load_settings()
    assert settings.profile == "services"
    listening = services["kafka"]["environment"]["KAFKA_LISTENERS"] + services["minio"]["command"]
    for address in (settings.kafka, settings.s3_endpoint.removeprefix("http://")):
        host, _, port = address.partition(":")
        assert host in services and f":{port}" in listening
    assert settings.postgres_host in services and settings.postgres_port == 5432
    mlflow = services["mlflow"]["environment"]
    assert mlflow["MLFLOW_BACKEND_STORE_URI"] == settings.postgres_url("mlflow")
    assert mlflow["MLFLOW_DEFAULT_ARTIFACT_ROOT"] == f"{settings.s3_root}/mlflow"
    assert services["code"]["environment"]["QUANTLYTIC_DAGSTER_DATABASE"] == settings.database("dagster")


def test_commands_exist_and_take_these_options(services):
    from dagster._cli import create_dagster_cli
    from dagster._daemon.cli import create_dagster_daemon_cli
    from dagster_webserver.cli import dagster_webserver
    from mlflow.cli import cli as mlflow

    programs = {
        "quantlytic": get_command(app),
        "dagster": create_dagster_cli(),
        "dagster-webserver": dagster_webserver,
        "dagster-daemon": create_dagster_daemon_cli(),
        "mlflow": mlflow,
    }
    for name in OURS:
        for command in (services[name]["command"], services[name].get("healthcheck", {}).get("test", ["CMD"])[1:]):
            if not command:
                continue
            program, *arguments = words(command)
            if program == "python":
                assert (CHECKOUT / arguments[0].removeprefix("/opt/quantlytic/")).is_file()
                continue
            # Up to its own help, which comes after all options were understood.
            done = CliRunner().invoke(programs[program], [*arguments, "--help"], prog_name=program)
            assert done.exit_code == 0, (command, done.output)
            for option in (word.partition("=")[0] for word in arguments if word.startswith("--")):
                assert option in done.output, (command, option)


def test_the_code_location_is_where_the_workspace_says(services):
    workspace = yaml.safe_load((CHECKOUT / "deploy" / "workspace.docker.yaml").read_text())
    server = workspace["load_from"][0]["grpc_server"]
    told = dict(word.removeprefix("--").split("=") for word in services[server["host"]]["command"] if "=" in word)
    assert told["port"] == str(server["port"]) and told["location-name"] == server["location_name"]
    own = yaml.safe_load((CHECKOUT / "workspace.yaml").read_text())["load_from"][0]["python_module"]
    assert (told["module-name"], told["attribute"]) == (own["module_name"], own["attribute"])
    for name in ("webserver", "daemon"):
        assert services[name]["command"][-1] == "/opt/quantlytic/deploy/workspace.docker.yaml"


def test_the_image_holds_what_is_used_and_runs_as_nobody_special(services):
    text = (CHECKOUT / "Dockerfile").read_text()
    for base in re.findall(r"^FROM (\S+)", text, re.MULTILINE):
        assert re.fullmatch(r"python:3\.11\.\d+-slim-\w+", base), base
    copied = [
        source
        for line in re.findall(r"^COPY (?!--from)(.+)$", text, re.MULTILINE)
        for source in [word for word in line.split() if not word.startswith("--")][:-1]
    ]
    allowed = {line[1:] for line in (CHECKOUT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for source in copied:
        assert (CHECKOUT / source).exists(), source
        assert source.split("/")[0] in allowed, f"{source} is not sent to the builder"
    for part in ("setup.py", "requirements.in", "universe.yaml", "deploy", "dbt_project", "quantlytic_assets"):
        assert part in copied
    users = re.findall(r"^USER (\S+)", text, re.MULTILINE)
    assert users == ["quantlytic"] and "root" not in users
    home = re.search(r"QUANTLYTIC_HOME=(\S+)", text)[1]
    assert all(f"data:{home}" in services[name]["volumes"] for name in ("code", "daemon", "metrics"))
    for name in OURS:
        for word in words(services[name]["command"]):
            inside = word.removeprefix("/opt/quantlytic/")
            assert inside == word or inside.split("/")[0] in copied, word
    # Nothing of the machine that builds it, secrets above all.
    assert (CHECKOUT / ".dockerignore").read_text().splitlines()[1] == "*"
    assert ".env" in (CHECKOUT / ".gitignore").read_text().splitlines()
