"""The environment as a user would set it."""

from pathlib import Path

import pytest

from quantlytic_assets.settings import CHECKOUT, Settings, SettingsError, load_settings


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch):
    for name in Settings.model_fields:
        monkeypatch.delenv(f"QUANTLYTIC_{name.upper()}", raising=False)


def test_without_any_setting_everything_is_beside_the_shipped_universe():
    settings = load_settings()
    assert settings.profile == "embedded"
    assert settings.universe == CHECKOUT / "universe.yaml"
    assert settings.universe.is_file()
    assert settings.data == CHECKOUT / ".quantlytic"


def test_the_data_directory_is_beside_another_universe_file(monkeypatch, tmp_path):
    monkeypatch.setenv("QUANTLYTIC_UNIVERSE", str(tmp_path / "mine.yaml"))
    assert load_settings().data == tmp_path / ".quantlytic"


def test_relative_paths_are_made_absolute(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("QUANTLYTIC_UNIVERSE", "mine.yaml")
    assert load_settings().data == tmp_path / ".quantlytic"
    monkeypatch.setenv("QUANTLYTIC_HOME", "elsewhere")
    assert load_settings().data == tmp_path / "elsewhere"


def test_home_goes_before_the_universe_s_place(monkeypatch, tmp_path):
    monkeypatch.setenv("QUANTLYTIC_HOME", str(tmp_path / "home"))
    settings = load_settings()
    assert settings.data == tmp_path / "home"
    assert not settings.data.exists(), "asking for settings makes nothing"
    assert settings.directory("bus") == tmp_path / "home" / "bus"
    assert settings.directory("bus").is_dir()


def test_an_empty_variable_is_one_that_is_not_set(monkeypatch):
    monkeypatch.setenv("QUANTLYTIC_HOME", "")
    monkeypatch.setenv("QUANTLYTIC_PORT", "")
    settings = load_settings()
    assert settings.home is None
    assert settings.port == 3000


def test_all_wrong_variables_are_named_at_once(monkeypatch):
    monkeypatch.setenv("QUANTLYTIC_PORT", "99999")
    monkeypatch.setenv("QUANTLYTIC_PROFILE", "cloud")
    monkeypatch.setenv("QUANTLYTIC_CLAIM_RECORDS", "none")
    with pytest.raises(SettingsError) as caught:
        load_settings()
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert any(line.startswith("QUANTLYTIC_PORT='99999':") for line in lines)
    assert any(line.startswith("QUANTLYTIC_PROFILE='cloud':") and "embedded" in line for line in lines)
    assert any(line.startswith("QUANTLYTIC_CLAIM_RECORDS='none':") for line in lines)


def test_variables_of_other_programs_are_left_alone(monkeypatch):
    monkeypatch.setenv("QUANTLYTIC_LAKE_CATALOG", "ducklake:sqlite:x")
    assert load_settings().profile == "embedded"


def test_settings_cannot_be_changed_afterwards():
    settings = load_settings()
    with pytest.raises(ValueError, match="frozen"):
        settings.home = Path("/tmp")
