"""What is remembered survives a restart, and nothing else happens if it does not."""

import stat
from pathlib import Path

import pytest

from xproxy.jid import Jid
from xproxy.proxy.memory import NAME, load_memory, save_memory
from xproxy.xmpp.memory import Memory


def filled() -> Memory:
    memory = Memory()
    memory.is_starttls_missing("example.org", offered=True)
    memory.previous_certificate("example.org", "11" * 32)
    memory.missing_mechanisms(("example.org", "rfc6120", "1.3"), ("SCRAM-SHA-1",))
    memory.logged_in_by("user-hash", "SCRAM-SHA-1")
    memory.resumable("id-hash", Jid.from_text("juliet@example.org/balcony"))
    return memory


def test_what_is_written_is_read(tmp_path: Path) -> None:
    save_memory(filled(), tmp_path)
    memory = load_memory(tmp_path)
    assert memory.dump() == filled().dump()
    assert memory.is_starttls_missing("example.org", offered=False)
    assert memory.missing_mechanisms(("example.org", "rfc6120", "1.3"), ()) == ("SCRAM-SHA-1",)
    assert memory.mechanism_before("user-hash") == "SCRAM-SHA-1"
    assert stat.S_IMODE((tmp_path / NAME).stat().st_mode) == 0o600


def test_no_user_is_in_the_file(tmp_path: Path) -> None:
    save_memory(filled(), tmp_path)
    assert b"juliet" not in (tmp_path / NAME).read_bytes()


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"{}", b'{"version":2}', b'{"version":1,"domains":{"a":1},"mechanisms":{}}']
)
def test_a_file_that_is_none_is_said_and_begun_anew(
    tmp_path: Path, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / NAME).write_bytes(data)
    assert load_memory(tmp_path).dump() == Memory().dump()
    assert "cannot be read" in caplog.text


def test_a_directory_that_is_gone_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save_memory(filled(), tmp_path / "gone")
    assert "cannot write" in caplog.text
