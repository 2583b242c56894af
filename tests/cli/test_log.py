import json
import shutil
import stat
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs
import pytest
from click.testing import CliRunner, Result

from tests.support.journals import SECOND_NS, Maker, frames_of, make_small, rewritten, write_frames
from xproxy.cli import log as cli_log
from xproxy.cli.log import Moment, log
from xproxy.config.journal import JournalSettings
from xproxy.errors import FileProblem, UsageProblem
from xproxy.journal.lock import JournalLocked, WriterLock
from xproxy.journal.reader import JournalDamaged, JournalMissing
from xproxy.journal.writer import open_journal
from xproxy.record.recorder import Observer, ProxyRecorder

TRACE = "3f2a1b" + "0" * 26
PEOPLE = {
    "romeo": {"trace": {"id": TRACE}, "related": {"ip": ["192.0.2.7"]}, "xmpp": {"jid": "romeo@example.org/orchard"}},
    "juliet": {
        "trace": {"id": "ab" * 16},
        "related": {"ip": ["2001:db8::5"]},
        "xmpp": {"jid": "juliet@example.com", "stanza": {"to": "Romeo@example.org"}},
    },
}


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def maker(state: Path) -> Maker:
    """A journal of two people, two levels and two streams, closed in form."""
    maker = Maker(state / "journal")
    maker.open()
    maker.open("ops")
    maker.events(2, **PEOPLE["romeo"])
    maker.events(1, "ops", level="debug", action="stanza-relayed", **PEOPLE["romeo"])
    maker.events(1, action="sasl-failed", level="warning", **PEOPLE["juliet"])
    maker.heartbeat()
    maker.events(1, "ops", level="debug", action="stanza-relayed", **PEOPLE["juliet"])
    maker.close()
    return maker


def run(*arguments: object, code: int = 0) -> Result:
    result = CliRunner().invoke(log, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


def shown(*arguments: object) -> list[int]:
    """Return the numbers of the records that a command shows."""
    return [json.loads(line)["event"]["sequence"] for line in run(*arguments).stdout.splitlines()]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A person reads standard output."""
    monkeypatch.setattr(cli_log, "is_terminal", lambda stream: True)
    monkeypatch.setenv("COLUMNS", "200")


# --- show and tail -----------------------------------------------------------------------------------------------


def test_show(maker: Maker, state: Path) -> None:
    assert shown("show", "--state", state) == [1, 2, 3, 4]
    lines = run("show", "--state", state, "--level", "debug").stdout.splitlines()
    actions = [json.loads(line)["event"]["action"] for line in lines]
    # A debug record stands behind what sec held when it was made.
    assert actions == [
        "stream-opened",
        "stream-opened",
        "stanza-relayed",
        "sasl-failed",
        "journal-checkpoint",
        "stanza-relayed",
    ]


@pytest.mark.parametrize(
    ("filters", "numbers"),
    [
        (["--action", "sasl-failed"], [3]),
        (["--action", "s*"], [1, 2, 3]),
        (["--action", "sasl-failed", "--action", "journal-*"], [3, 4]),
        (["--level", "warning"], [3]),
        (["--jid", "juliet@example.com"], [3]),
        (["--jid", "ROMEO@example.org"], [1, 2, 3]),  # also as a recipient
        (["--jid", "romeo@example.org/orchard"], [1, 2]),
        (["--jid", "romeo@example.org/balcony"], []),
        (["--jid", "example.com"], [3]),
        (["--ip", "192.0.2.7"], [1, 2]),
        (["--ip", "192.0.2.0/24"], [1, 2]),
        (["--ip", "2001:db8::/32"], [3]),
        (["--trace", "3f2a1b"], [1, 2]),
        (["--trace", TRACE], [1, 2]),
        (["--trace", "f"], []),
        (["--since", "2026-09-21T14:13:20Z"], [1, 2, 3, 4]),
        (["--since", "2026-09-21T14:13:21Z"], []),
        (["--until", "2026-09-21T14:13:20Z"], [1, 2, 3, 4]),
        (["--until", "2026-09-21T14:13:19Z"], []),
        (["--trace", "3f2a1b", "--action", "sasl-*"], []),
    ],
)
def test_filters(maker: Maker, state: Path, filters: list[str], numbers: list[int]) -> None:
    assert shown("show", "--state", state, *filters) == numbers
    assert shown("tail", "-n", 99, "--state", state, *filters) == numbers


def test_tail_shows_the_last_that_match(maker: Maker, state: Path) -> None:
    assert shown("tail", "--state", state, "-n", 2) == [3, 4]
    assert shown("tail", "--state", state, "-n", 1, "--action", "stream-opened") == [2]
    assert shown("tail", "--state", state, "-n", 0) == []
    levels = [json.loads(line)["log"]["level"] for line in run(
        "tail", "--state", state, "-n", 3, "--level", "debug").stdout.splitlines()]  # fmt: skip
    assert levels == ["warning", "info", "debug"]


def test_a_person_gets_lines_with_the_day_above(maker: Maker, state: Path, terminal: None) -> None:
    output = run("show", "--state", state).output
    assert output.splitlines()[0].strip() == "2026-09-21"
    assert "14:13:20.000 W sasl-failed" in output
    assert run("show", "--state", state, "--json").output.startswith('{"@timestamp"')


def test_following(maker: Maker, state: Path, start_xproxy: Any) -> None:
    process = start_xproxy("log", "tail", "-f", "-n", "1", "--state", state, "--action", "s*")
    assert json.loads(process.stdout.readline())["event"]["sequence"] == 3
    maker.open()
    maker.events(1)
    first = json.loads(process.stdout.readline())["event"]["sequence"]
    maker.rotate_segment()
    maker.events(1)
    second = json.loads(process.stdout.readline())["event"]["sequence"]
    assert (first, second) == (7, 10)  # 6 and 9 open a segment, 5 and 8 close one


def test_without_a_journal(state: Path) -> None:
    for command in (["show"], ["tail"], ["verify"], ["stats"], ["keys", "show"], ["keys", "rotate"],
                    ["export", "--ndjson", "-"]):  # fmt: skip
        with pytest.raises(JournalMissing, match="no journal under"):
            run(*command, "--state", state)
    (state / "journal").mkdir(parents=True)
    for command in (["show"], ["tail"], ["export", "--tiles", "x"], ["keys", "rotate"]):
        with pytest.raises(JournalMissing, match="no entry yet"):
            run(*command, "--state", state)


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("2026-09-21T14:13:20Z", 1_790_000_000 * SECOND_NS),
        ("2026-09-21T14:13:20.5", 1_790_000_000 * SECOND_NS + SECOND_NS // 2),
        ("2026-09-21 16:13:20+02:00", 1_790_000_000 * SECOND_NS),
        ("2026-09-21", 1_789_948_800 * SECOND_NS),
    ],
)
def test_moments(text: str, ns: int) -> None:
    assert Moment().convert(text, None, None) == ns


def test_moments_that_are_so_long_ago() -> None:
    for text, seconds in (("90s", 90), ("15m", 900), ("2h ago", 7_200), ("3d", 259_200), ("1w", 604_800)):
        assert abs(time.time() - seconds - Moment().convert(text, None, None) / SECOND_NS) < 60


@pytest.mark.parametrize("option", [["--since", "yesterday"], ["--ip", "romeo"], ["--level", "loud"]])
def test_filters_that_make_no_sense(maker: Maker, state: Path, option: list[str]) -> None:
    run("show", "--state", state, *option, code=2)


# --- verify ------------------------------------------------------------------------------------------------------


def verdict(result: Result) -> Any:
    return json.loads(result.stdout)


def test_an_intact_journal(maker: Maker, state: Path) -> None:
    found = verdict(run("verify", "--state", state))
    assert (found["verdict"], found["findings"], found["being_written"]) == ("intact", [], False)
    sec, ops = found["streams"]
    assert (sec["stream"], sec["entries"], ops["entries"]) == ("sec", 6, 4)
    assert sec["key_trusted_by"] is None


def test_a_person_is_told_which_key_was_believed(maker: Maker, state: Path, terminal: None) -> None:
    output = run("verify", "--state", state).output
    assert "intact: every entry is what was signed" in output
    assert "No policy and no anchor" in output
    assert "/sec+" in output


def test_a_journal_that_was_tampered_with(maker: Maker, state: Path, terminal: None) -> None:
    path = maker.segments()[0]
    path.write_bytes(path.read_bytes().replace(b"sasl-failed", b"sasl-passed"))
    output = run("verify", "--state", state, code=1).output
    assert "TAMPERED" in output
    assert f"sec, entry 3, segment {path.stem}: " in output
    assert "(modified)" in output


def test_a_journal_that_was_not_closed(state: Path) -> None:
    maker = Maker(state / "journal")
    maker.open()
    maker.die()
    found = verdict(run("verify", "--state", state, code=4))
    assert [finding["kind"] for finding in found["findings"]] == ["unsealed"]


def test_policy_and_anchor(maker: Maker, state: Path, tmp_path: Path, terminal: None) -> None:
    policy, anchor = tmp_path / "policy", tmp_path / "anchor"
    policy.write_text(run("keys", "show", "--policy", "--state", state).stdout)
    anchor.write_text(run("keys", "show", "--anchor", "--state", state).stdout)
    output = run("verify", "--state", state, "--policy", policy).output
    assert "the key is the policy's" in output
    assert "No policy" not in output
    for given in (anchor, anchor.read_text()):
        output = run("verify", "--state", state, "--anchor", given).output
        assert "the anchor fits, and with it the first 6 entries" in output
        assert "No policy" not in output
    shutil.rmtree(state)
    forged = Maker(state / "journal")
    forged.open()
    forged.events(9)
    forged.close()
    assert "TAMPERED" in run("verify", "--state", state, "--policy", policy, code=1).output
    assert "TAMPERED" in run("verify", "--state", state, "--anchor", anchor, code=1).output


def test_an_anchor_that_is_none(maker: Maker, state: Path) -> None:
    for given in ("missing-file", "no\nnote\n"):
        with pytest.raises(FileProblem):
            run("verify", "--state", state, "--anchor", given)


# --- export ------------------------------------------------------------------------------------------------------


def test_export_as_json_lines(maker: Maker, state: Path, tmp_path: Path) -> None:
    whole = run("show", "--level", "debug", "--state", state).stdout
    assert run("export", "--ndjson", "-", "--state", state).stdout == whole
    path = tmp_path / "records.jsonl"
    assert "Wrote 6 records" in run("export", "--ndjson", path, "--state", state).stderr
    assert path.read_text() == whole
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in tmp_path.iterdir() if each.is_file()] == ["records.jsonl"]


@pytest.mark.parametrize("stream", [None, "ops"])
def test_export_as_tiles(maker: Maker, state: Path, tmp_path: Path, stream: str | None) -> None:
    directory = tmp_path / "tiles"
    run("export", "--tiles", directory, "--state", state, *(["--stream", stream] if stream else []))
    notes = maker.notes(stream or "sec")[-1].read_bytes()
    assert (directory / "checkpoint").read_bytes() in notes
    size = 4 if stream else 6
    assert (directory / f"tile/0/000.p/{size}").stat().st_size == size * 32
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    with pytest.raises(UsageProblem, match="not empty"):
        run("export", "--tiles", directory, "--state", state)


def test_tiles_of_what_was_tampered_with_are_not_exported(maker: Maker, state: Path, tmp_path: Path) -> None:
    """The checksums are repaired: only the root tells."""
    path = maker.segments()[0]
    frames = frames_of(path)
    frames[2] = rewritten(frames[2], lambda entry: attrs.evolve(entry, time_ns=1))
    write_frames(path, frames)
    with pytest.raises(JournalDamaged):
        run("export", "--tiles", tmp_path / "tiles", "--state", state)
    assert not (tmp_path / "tiles" / "checkpoint").exists()


def test_export_needs_to_know_what(maker: Maker, state: Path, tmp_path: Path) -> None:
    for arguments in ([], ["--tiles", tmp_path / "t", "--ndjson", "-"], ["--tiles", tmp_path / "t", "--stream", "x"]):
        with pytest.raises(UsageProblem):
            run("export", "--state", state, *arguments)


# --- keys and size -----------------------------------------------------------------------------------------------


def test_keys(state: Path, terminal: None) -> None:
    make_small(state / "journal")
    output = run("keys", "show", "--state", state).output
    assert "key from entry 0: gw1.example.org/xproxy/5f0c21aa/sec+" in output
    assert "key from entry 6: " in output
    assert "PRIVATE" not in output
    described = json.loads(run("keys", "show", "--json", "--state", state).stdout)
    assert [[each["from_entry"] for each in stream["keys"]] for stream in described] == [[0, 6], [0]]
    policy = run("keys", "show", "--policy", "--state", state).stdout
    assert policy.splitlines()[1] == f"log {described[0]['keys'][-1]['vkey']}"
    assert policy.splitlines()[-1] == "quorum none"


def test_keys_are_exchanged_without_a_proxy(maker: Maker, state: Path, tmp_path: Path) -> None:
    policy = tmp_path / "policy"
    policy.write_text(run("keys", "show", "--policy", "--state", state).stdout)
    old = [(maker.directory(stream) / "signing.key").read_bytes() for stream in ("sec", "ops")]
    run("keys", "rotate", "--state", state)
    new = [(maker.directory(stream) / "signing.key").read_bytes() for stream in ("sec", "ops")]
    assert not set(old) & set(new)
    described = json.loads(run("keys", "show", "--state", state).stdout)
    assert [len(stream["keys"]) for stream in described] == [2, 2]
    assert verdict(run("verify", "--state", state))["verdict"] == "intact"
    # Who trusted the old key trusts the new one, for the old one vouched for it.
    assert verdict(run("verify", "--state", state, "--policy", policy))["verdict"] == "intact"


def test_keys_are_exchanged_by_a_running_proxy(state: Path) -> None:
    state.mkdir()
    observer = Observer(version="0", hostname="gw1", boot_id="ab" * 16)
    journal = open_journal(
        state,
        settings=JournalSettings(ballast_bytes=0),
        on_failure="stop",
        recorder=ProxyRecorder(observer=observer),
        deliver=lambda records: None,
    )
    journal.start()
    stop = threading.Event()

    def poke() -> None:
        while not stop.wait(0.01):
            journal.poke()

    thread = threading.Thread(target=poke)
    thread.start()
    try:
        with pytest.raises(JournalLocked):
            cli_log._rotate_offline(state, 1.0)
        before = journal.vkey
        assert journal.vkey.split("+")[0] in run("keys", "rotate", "--wait", "30", "--state", state).stdout
        assert journal.vkey != before
        assert verdict(run("verify", "--state", state))["being_written"] is True
    finally:
        stop.set()
        thread.join()
        journal.close()
    assert verdict(run("verify", "--state", state))["verdict"] == "intact"


def test_a_proxy_that_does_not_answer_in_time(maker: Maker, state: Path) -> None:
    lock = WriterLock.take(maker.journal, now=datetime.now(UTC))
    try:
        result = run("keys", "rotate", "--wait", "0", "--state", state, code=1)
    finally:
        lock.release()
    assert "not exchanged yet" in result.stderr
    assert (maker.journal / "rotate-keys").exists()


def test_stats(state: Path, monkeypatch: pytest.MonkeyPatch, terminal: None) -> None:
    maker = Maker(state / "journal")
    begin = maker.clock.now_ns
    maker.open()
    maker.clock.now_ns = begin + 12 * 3_600 * SECOND_NS
    maker.rotate_segment()
    maker.events(20)
    maker.close()
    monkeypatch.setattr(cli_log.time, "time", lambda: begin / 1e9 + 30)
    assert "too young to tell" in run("stats", "--state", state).output
    monkeypatch.setattr(cli_log.time, "time", lambda: begin / 1e9 + 36 * 3_600)
    (stream,) = json.loads(run("stats", "--json", "--state", state).stdout)["streams"]
    assert (stream["entries"], stream["segments"], stream["measured_seconds"]) == (24, 2, 86_400)
    assert stream["entries_per_second"] * 86_400 == pytest.approx(22, rel=0.01)  # what the second segment holds
    described = json.loads(run("stats", "--json", "--state", state).stdout)
    disk = described["disk"]
    assert disk["days_until_full"] == pytest.approx(disk["free_bytes"] / stream["bytes_per_day"], rel=0.01)
    output = run("stats", "--state", state).output
    assert "22 entries a day" in output
    assert "full in" in output


@pytest.mark.parametrize(
    "command",
    [[], ["tail"], ["show"], ["verify"], ["export"], ["keys"], ["keys", "show"], ["keys", "rotate"], ["stats"]],
)
def test_help(command: list[str]) -> None:
    assert len(run(*command, "--help").output.splitlines()) > 6
