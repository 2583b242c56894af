"""The month's key of pseudonyms in the state directory."""

import stat
from pathlib import Path

import attrs
import pytest

from xproxy.config.log import LogSettings
from xproxy.config.settings import Settings
from xproxy.config.state import StateSettings
from xproxy.errors import FileProblem
from xproxy.record.identities import IdentityKey
from xproxy.record.identity_key import open_identities


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state=StateSettings(directory=tmp_path / "state"))


def test_the_key_of_pseudonyms_is_made_once_and_replaced_every_month(settings: Settings) -> None:
    at_ns, next_month_ns = 1_700_000_000_000_000_000, 1_701_388_800_000_000_000
    settings = attrs.evolve(settings, log=LogSettings(identities="pseudonym"))
    directory = settings.state.directory
    directory.mkdir()
    path = directory / "identities.key"

    first = open_identities(settings, at_ns)
    again = open_identities(settings, at_ns)
    assert first is not None
    assert again is not None
    assert first.stamp == again.stamp
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    key = IdentityKey.from_bytes(path.read_bytes())
    first.reach(next_month_ns)  # while it runs
    assert IdentityKey.from_bytes(path.read_bytes()) == key.at(next_month_ns)
    path.write_bytes(key.to_bytes())
    later = open_identities(settings, next_month_ns)  # at the start
    assert later is not None
    assert later.stamp == first.stamp
    assert IdentityKey.from_bytes(path.read_bytes()) == key.at(next_month_ns)
    assert [entry.name for entry in directory.iterdir()] == ["identities.key"]

    path.write_bytes(b"no key")
    with pytest.raises(FileProblem, match=r"is none: .*restore it, or delete it") as caught:
        open_identities(settings, at_ns)
    assert "no key" not in str(caught.value)
    assert open_identities(attrs.evolve(settings, log=LogSettings()), at_ns) is None


def test_a_key_that_cannot_be_replaced_is_said(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settings = attrs.evolve(settings, log=LogSettings(identities="pseudonym"))
    settings.state.directory.mkdir()
    identities = open_identities(settings, 1_700_000_000_000_000_000)
    assert identities is not None

    def crash(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", crash)
    identities.reach(1_701_388_800_000_000_000)
    assert "last month's pseudonyms is still there" in caplog.text
    assert [entry.name for entry in settings.state.directory.iterdir()] == ["identities.key"]
