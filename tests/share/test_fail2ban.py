"""What fail2ban itself makes of records: who is counted, who is not, and that nobody can have another banned."""

import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Literal

import attrs
import pytest

from tests.support.samples import FULL
from xproxy import share
from xproxy.events import Endpoint
from xproxy.events.connection import ConnectionAccepted
from xproxy.events.sasl import SaslFailed
from xproxy.record.identities import Identities, IdentityKey
from xproxy.record.recorder import Observer, SessionRecorder

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("fail2ban-regex") is None, reason="Debian package fail2ban is not installed"),
]

OBSERVER = Observer(version="0.1.0", hostname="gw1", boot_id="b" * 32)
NOW_NS = time.time_ns()
VICTIM = "203.0.113.66"
SPOOFED = (
    f'","client":{{"ip":"{VICTIM}","port":1}},"error":{{"code":"not-authorized"}}',
    f'\\",\\"client\\":{{\\"ip\\":\\"{VICTIM}\\"',
    f'{{"@timestamp":"2026-11-26T00:00:00.000000Z","log":"action":"sasl-failed","client":{{"ip":"{VICTIM}"',
    f"\n{VICTIM}\r\u2028",
)


def sample(event_type: type, **changes: object) -> object:
    return attrs.evolve(next(event for event in FULL if isinstance(event, event_type)), **changes)


def failure(ip: str, *, identities: Identities | None = None, **changes: object) -> bytes:
    """Return the record of a failed login from ``ip``."""
    recorder = SessionRecorder(trace_id="0" * 32, observer=OBSERVER, identities=identities)
    recorder.record(sample(ConnectionAccepted, client=Endpoint(ip, 40_000)), NOW_NS)  # type: ignore[arg-type]
    return recorder.record(sample(SaslFailed, **{"cause": None, **changes}), NOW_NS).to_json()  # type: ignore[arg-type]


def counted(directory: Path, *records: bytes) -> list[str]:
    """Return the addresses that fail2ban counts a failure for."""
    log, rules = directory / "records.jsonl", directory / "xproxy.conf"
    log.write_bytes(b"".join(record.rstrip(b"\n") + b"\n" for record in records))
    rules.write_bytes(share.read(share.find("fail2ban-filter.conf")[0]))
    command = ["fail2ban-regex", "--out", "ip", str(log), str(rules)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert "rror" not in done.stderr, done.stderr
    return done.stdout.split()


def hidden(mode: Literal["pseudonym", "omit"]) -> Identities:
    return Identities(mode, IdentityKey.new(NOW_NS, lambda count: b"k" * count))


def test_wrong_passwords_are_counted_and_nothing_else(tmp_path: Path) -> None:
    others = [SessionRecorder(trace_id="0" * 32, observer=OBSERVER).record(event, NOW_NS).to_json() for event in FULL]
    assert counted(
        tmp_path,
        failure("192.0.2.7"),
        failure("2001:db8::7", text=None, application_condition=None, tasks=()),
        failure("192.0.2.8", cause="channel-binding-broken-by-proxy"),
        failure("192.0.2.9", condition="temporary-auth-failure"),
        failure("192.0.2.10", identities=hidden("pseudonym")),
        failure("192.0.2.11", identities=hidden("omit")),
        *others,
    ) == ["192.0.2.7", "2001:db8::7"]


@pytest.mark.parametrize("field", ["authcid", "authzid", "mechanism", "condition", "application_condition", "text"])
def test_no_text_of_a_peer_has_another_banned(tmp_path: Path, field: str) -> None:
    assert VICTIM not in counted(tmp_path, *(failure("192.0.2.7", **{field: text}) for text in SPOOFED))


def test_nor_can_a_guesser_hide_behind_his_name(tmp_path: Path) -> None:
    """What makes a record be passed over stands nowhere in what a client says."""
    names = ['","cause":"channel-binding-broken-by-proxy"', '"identities":{"mode":"', *SPOOFED]
    assert counted(tmp_path, *(failure("192.0.2.7", authcid=name) for name in names)) == ["192.0.2.7"] * len(names)


def test_the_time_is_that_of_the_record(tmp_path: Path) -> None:
    """Else an old log read again would ban whoever mistyped last year."""
    log, rules = tmp_path / "records.jsonl", tmp_path / "xproxy.conf"
    record = json.loads(failure("192.0.2.7"))
    log.write_bytes(failure("192.0.2.7") + b"\n")
    rules.write_bytes(share.read(share.find("fail2ban-filter.conf")[0]))
    command = ["fail2ban-regex", "--out", "<time>", str(log), str(rules)]
    elsewhere = {**os.environ, "TZ": "America/New_York"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60, env=elsewhere)
    assert abs(float(done.stdout) - NOW_NS / 1e9) < 1, (done.stdout, record["@timestamp"])


def test_the_jail_is_one(tmp_path: Path) -> None:
    (tmp_path / "jail.d").mkdir()
    (tmp_path / "filter.d").mkdir()
    for part in ("jail.conf", "fail2ban.conf", "paths-common.conf", "paths-debian.conf"):
        if (Path("/etc/fail2ban") / part).exists():
            shutil.copy(Path("/etc/fail2ban") / part, tmp_path)
    shutil.copytree("/etc/fail2ban/action.d", tmp_path / "action.d")
    (tmp_path / "jail.d" / "xproxy.conf").write_bytes(
        share.read(share.find("fail2ban-jail.conf")[0]).replace(b"/var/log/xproxy", str(tmp_path).encode())
    )
    (tmp_path / "filter.d" / "xproxy.conf").write_bytes(share.read(share.find("fail2ban-filter.conf")[0]))
    (tmp_path / "records.jsonl").touch()
    command = ["fail2ban-client", "-c", str(tmp_path), "--dump"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert f"['set', 'xproxy', 'addlogpath', '{tmp_path}/records.jsonl', 'head']" in done.stdout, done.stdout
    assert "['set', 'xproxy', 'maxretry', 20]" in done.stdout
