"""What the fixtures of the pytest plugin are made of. Imported when a test asks for one."""

import re
import ssl
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

import attrs
import orjson
import pytest
import trio

from xproxy import __version__, app
from xproxy.capture.cassette_xml import read_cassette, render_cassette
from xproxy.capture.make import make_cassette
from xproxy.capture.trace import SUFFIX as CAPTURE_SUFFIX
from xproxy.cli.output import replace_file
from xproxy.cli.report import render_human
from xproxy.config.address import HostPort
from xproxy.config.capture import CaptureSettings
from xproxy.config.listen import ListenAddress, ListenSettings
from xproxy.config.log import LogSettings
from xproxy.config.settings import Settings
from xproxy.config.state import StateSettings
from xproxy.config.upstream import UpstreamSettings
from xproxy.pytest_threads import AccountHandle, Background, ReplayFailed, trust_environment
from xproxy.replay.compare import by_session, compare, read_golden
from xproxy.replay.golden import SUFFIX as GOLDEN_SUFFIX
from xproxy.replay.golden import golden_lines
from xproxy.replay.offline import replay
from xproxy.replay.report import Report, to_json
from xproxy.replay.scrub import Scrubber
from xproxy.tls.authority import Authority

_UNSAFE: Final = re.compile(r"[^A-Za-z0-9_.-]+")
_NAME_CHARS_MAX: Final = 200


class Ca:
    """A certificate authority of one test run."""

    def __init__(self, directory: Path) -> None:
        self._authority = Authority.open_(directory)
        self.path = self._authority.certificate_path
        self.environment = trust_environment(self.path)

    def server_context(self, domain: str) -> ssl.SSLContext:
        """Return a context that shows a certificate for ``domain``."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._authority.leaf(domain).load_into(context)
        return context


class ProxyHandle:
    """A real proxy in a thread."""

    def __init__(
        self,
        directory: Path,
        upstream: str,
        *,
        domain: str | None = None,
        upstream_ca: Path | str | None = None,
        capture: bool = False,
        bodies: bool = True,
    ) -> None:
        """Start it before ``upstream`` (HOST:PORT); ``capture``: sessions are written down, with ``bodies``."""
        directory.mkdir(parents=True, exist_ok=True)
        self._log = directory / "records.jsonl"
        self._captures = directory / "captures"
        settings = Settings(
            listen=ListenSettings(addresses=(ListenAddress("127.0.0.1", 0),)),
            upstream=UpstreamSettings(
                address=HostPort.from_text(upstream),
                domain=domain,
                ca_file=None if upstream_ca is None else Path(upstream_ca),
            ),
            log=LogSettings(path=self._log, format="json"),
            state=StateSettings(directory=directory / "state"),
            **_capture_settings(self._captures, bodies=bodies) if capture else {},
        )
        self._thread: Background[app.Running, None] = Background(partial(_run, settings), "xproxy")
        endpoint = self._thread.value.listeners[0]
        assert self._thread.value.ca_file is not None
        self.host, self.port, self.ca_path = endpoint.ip, endpoint.port, self._thread.value.ca_file

    @property
    def environment(self) -> dict[str, str]:
        """What makes clients in subprocesses trust the proxy's certificate."""
        return trust_environment(self.ca_path)

    def records(self) -> list[dict[str, Any]]:
        """Return the records written so far."""
        octets = self._log.read_bytes() if self._log.exists() else b""
        return [orjson.loads(line) for line in octets.splitlines(keepends=True) if line.endswith(b"\n")]

    def captures(self) -> list[Path]:
        """Return the captures; whole once the proxy has stopped."""
        return sorted(self._captures.glob("*.xcap.jsonl")) if self._captures.is_dir() else []

    def stop(self) -> None:
        """Let sessions end, then stop; sessions that stay are dropped."""
        if self._thread.is_running:
            self._thread.call(partial(self._thread.value.stop, "finished"))
            self._thread.call(partial(self._thread.value.stop, "finished"))
        self._thread.join()


async def _run(settings: Settings, task_status: "trio.TaskStatus[app.Running]") -> None:
    await app.run(settings, task_status=task_status)


def _capture_settings(directory: Path, *, bodies: bool) -> dict[str, Any]:
    return {"capture": CaptureSettings(directory=directory, bodies=bodies)}


class Recording:
    """A recording proxy where a fake server would be: the same attributes, and the cassette at the end."""

    def __init__(self, proxy: ProxyHandle, cassette: Path, domain: str, accounts: dict[str, str]) -> None:
        self._proxy = proxy
        self._cassette = cassette
        self._accounts = accounts
        self.domain = domain
        self.host, self.port, self.ca_path = proxy.host, proxy.port, proxy.ca_path
        self.environment = proxy.environment

    @classmethod
    def start(
        cls, request: pytest.FixtureRequest, directory: Path, cassette: Path, accounts: dict[str, str]
    ) -> "Recording":
        """Start it as the options of the test run say."""
        upstream = request.config.getoption("--xmpp-upstream")
        if not upstream:
            raise pytest.UsageError("--xmpp-record=all needs the real server: --xmpp-upstream HOST:PORT")
        marker = request.node.get_closest_marker("xmpp_cassette")
        domain = _domain(cassette, accounts, marker)
        ca = request.config.getoption("--xmpp-upstream-ca")
        proxy = ProxyHandle(directory, upstream, domain=domain, upstream_ca=ca, capture=True)
        return cls(proxy, cassette, domain, {name.partition("@")[0]: value for name, value in accounts.items()})

    def account(self, name: str) -> AccountHandle:
        """Return the account ``name`` of the real server; its password is that of ``xmpp_accounts``."""
        if name not in self._accounts:
            raise pytest.UsageError(f"recording needs the password of {name}: override the fixture xmpp_accounts")
        return AccountHandle(name=name, jid=f"{name}@{self.domain}", user=name, password=self._accounts[name])

    def said_all(self) -> bool:
        """While recording there is nothing to wait for."""
        return False

    def check(self) -> None:
        """While recording there is nothing to compare with."""

    def report(self) -> Report:
        """While recording there is nothing to compare with."""
        return Report(name="recording", cases=())

    def finish(self, *, passed: bool) -> None:
        """Stop; write the cassette if the test passed. An old one is replaced whole, or stays as it is."""
        self._proxy.stop()
        captures = self._proxy.captures()
        if not passed or not captures:
            return
        data = render_cassette(make_cassette(captures, by=f"xproxy {__version__}").cassette)
        if Scrubber(self._accounts.values()).finds(data.decode()):
            pytest.fail(f"{self._cassette} was not written: a password would be in it", pytrace=False)
        self._cassette.parent.mkdir(parents=True, exist_ok=True)
        replace_file(self._cassette, data)


def _domain(cassette: Path, accounts: dict[str, str], marker: pytest.Mark | None) -> str:
    """Of a cassette that is there, else of an account that is given as user@domain."""
    if cassette.exists():
        return read_cassette(cassette).sessions[0].domain
    for name in accounts:
        if "@" in name:
            return name.partition("@")[2]
    raise pytest.UsageError(
        "to record a new cassette give its accounts with their domain: "
        '@pytest.mark.xmpp_cassette(accounts={"alice@example.test": "password"})'
    )


@attrs.frozen
class Pipeline:
    """A capture through the analysis, offline."""

    path: Path
    update: bool

    def records(self) -> list[dict[str, Any]]:
        """Return the records the log has of it, session after session."""
        return [document for _, documents in self._sessions() for document in documents]

    def _sessions(self) -> list[tuple[int, list[dict[str, Any]]]]:
        found: dict[int, list[dict[str, Any]]] = {}
        for replayed in replay(self.path):
            found.setdefault(replayed.session, []).extend(record.document for record in replayed.records)
        return sorted(found.items())

    def assert_golden(self, golden: Path | None = None) -> None:
        """Compare with the golden events: x.events.jsonl beside x.xcap.jsonl, or another file.

        Raises:
            AssertionError: they differ, or there are none; with --xmpp-update-golden they are written instead.
        """
        golden = golden or self.path.with_name(self.path.name.removesuffix(CAPTURE_SUFFIX) + GOLDEN_SUFFIX)
        lines = {number: golden_lines(documents, session=number) for number, documents in self._sessions()}
        if self.update:
            replace_file(golden, b"".join(line for session in lines.values() for line in session))
            return
        if not golden.exists():
            raise AssertionError(f"there is no {golden}: write it with pytest --xmpp-update-golden")
        expected = by_session(read_golden(golden))
        found = [
            compare(expected.pop(str(number), []), session, file=str(golden), line=1)
            for number, session in lines.items()
        ]
        failures = [failure for failure in found if failure is not None]
        if failures or expected:
            more = [f"session {number} is no longer there" for number in expected]
            text = "\n".join([*(f"{failure.message}\n{failure.detail}" for failure in failures), *more])
            raise AssertionError(f"{golden} differs; if it is right so: pytest --xmpp-update-golden\n{text}")


def sections(handles: Iterable[Any], error: BaseException | None) -> list[tuple[str, str]]:
    """Return what a failed test's report shows of its replays, where ``error``, the failure itself, does not."""
    said = error.report if isinstance(error, ReplayFailed) else None
    return [
        (f"XMPP replay: {report.name}", render_human(report).plain)
        for report in _reports(handles)
        if report.exit_code and report is not said
    ]


def keep_artifacts(directory: Path, nodeid: str, handles: Iterable[Any]) -> None:
    """Write report and live conversation of a failed test into a directory of its own."""
    handles = list(handles)
    if not handles:
        return
    place = directory / _UNSAFE.sub("-", nodeid)[:_NAME_CHARS_MAX].strip("-")
    place.mkdir(parents=True, exist_ok=True)
    for number, report in enumerate(_reports(handles), 1):
        (place / f"report-{number}.txt").write_text(render_human(report).plain + "\n")
        (place / f"report-{number}.json").write_bytes(orjson.dumps(to_json(report), option=orjson.OPT_INDENT_2))
    for number, handle in enumerate(handles, 1):
        accepted = handle.accepted() if hasattr(handle, "accepted") else None
        if accepted is not None:
            (place / f"live-{number}.xmpp.xml").write_bytes(render_cassette(accepted))
    (place / "test.txt").write_text(f"{nodeid}\n{datetime.now(UTC).isoformat(timespec='seconds')}\n")


def _reports(handles: Iterable[Any]) -> list[Report]:
    found: list[Report] = []
    for handle in handles:
        if hasattr(handle, "reports"):
            found += handle.reports
        elif getattr(handle, "_report", None) is not None:
            found.append(handle._report)
    return found
