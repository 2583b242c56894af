"""Every command about a proxy finds its state directory where the proxy itself has it."""

import os
from pathlib import Path

import pytest

from tests.cli.conftest import RunXproxy
from xproxy.cli import state
from xproxy.cli.state import configured_state, find_state
from xproxy.errors import ConfigProblems


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of its own: a home, a service, a working directory."""
    for name in [name for name in os.environ if name.startswith("XPROXY_") or name == "STATE_DIRECTORY"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(state, "SERVICE_STATE", tmp_path / "service")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_without_anything_it_is_the_users_own(here: Path) -> None:
    assert find_state("journal") == here / "home" / "xproxy"


def test_what_only_the_service_has_is_looked_for_there(here: Path) -> None:
    (here / "service" / "journal").mkdir(parents=True)
    assert find_state("journal") == here / "service"
    assert find_state("ca.pem") == here / "home" / "xproxy"
    (here / "home" / "xproxy" / "journal").mkdir(parents=True)
    assert find_state("journal") == here / "home" / "xproxy"


def test_what_is_made_is_never_made_there_by_accident(here: Path) -> None:
    (here / "service" / "ca.pem").mkdir(parents=True)
    assert configured_state() == here / "home" / "xproxy"


def test_environment_and_configuration_say_which(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "service" / "journal").mkdir(parents=True)
    (here / "xproxy.toml").write_text("[state]\ndirectory = 'own'\n[log]\nlevel = 'loud'\n[nonsense]\n")
    assert find_state("journal") == Path("own")
    monkeypatch.setenv("XPROXY_STATE", str(here / "other"))
    assert find_state("journal") == here / "other"


def test_a_configuration_that_does_not_say_which(here: Path) -> None:
    (here / "xproxy.toml").write_text("[state]\ndirectory = ''\n")
    with pytest.raises(ConfigProblems, match=r"xproxy\.toml:2: directory: must not be empty"):
        find_state("journal")


@pytest.mark.slow
def test_commands_obey(xproxy: RunXproxy, tmp_path: Path) -> None:
    (tmp_path / "xproxy.toml").write_text("[state]\ndirectory = 'own'\n")
    assert xproxy("certs", "init").code == 0
    assert (tmp_path / "own" / "ca.pem").exists()
    assert f"{Path('own') / 'ca.pem'}" in xproxy("certs", "show").out
    assert "there is no journal under own" in xproxy("log", "show").err
    assert "own" in xproxy("status").err
    (tmp_path / "xproxy.toml").write_text("[state]\ndirectory = ''\n")
    outcome = xproxy("certs", "show")
    assert outcome.code == 2
    assert "xproxy.toml:2: directory: must not be empty" in outcome.err
