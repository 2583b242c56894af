"""pytest plugin: cassettes in tests.

    @pytest.mark.xmpp_cassette("login.xmpp.xml")
    def test_login(xmpp_replay_server):
        alice = xmpp_replay_server.account("alice")
        my_client.login(alice.jid, alice.password, host=xmpp_replay_server.host, port=xmpp_replay_server.port,
                        ca=xmpp_replay_server.ca_path)

When the test's own code has passed, the replay is waited for and judged; what it finds is the test's failure.

Only pytest is imported here: the plugin is loaded in every test run of an environment that has xproxy, also where no
test uses it.
"""

import re
import secrets
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from xproxy.pytest_threads import ClientHandle, ServerHandle
    from xproxy.pytest_tools import Ca, Pipeline, ProxyHandle, Recording
    from xproxy.replay.report import Report

_SUFFIX: Final = ".xmpp.xml"
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9_.-]+")
_NAME_CHARS_MAX: Final = 120
_SETTINGS: Final = (
    *("pace", "unexpected", "lenient", "step_seconds", "total_seconds", "linger_seconds", "gap_seconds_max"),
    *("close_seconds_max", "match_seconds_max"),
)

_handles: Final = pytest.StashKey["_Handles"]()
_recordings: Final = pytest.StashKey[list["Recording"]]()
_failed: Final = pytest.StashKey[bool]()
_used: Final = pytest.StashKey["_Paths"]()
_known: Final = pytest.StashKey["_Paths"]()


class _Handles(list[Any]):
    """Fake servers and clients of one test."""


class _Paths(set[Path]):
    """Cassettes, or directories of them."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("xmpp", "XMPP cassettes (xproxy)")
    group.addoption(
        "--xmpp-record",
        choices=["none", "all"],
        default="none",
        help="all: tests talk to --xmpp-upstream through a recording proxy, and the cassette of a test that passed is "
        "replaced. none (default): cassettes are replayed.",
    )
    group.addoption("--xmpp-upstream", metavar="HOST:PORT", help="The real server for --xmpp-record=all.")
    group.addoption("--xmpp-upstream-ca", metavar="FILE", help="Who signed its certificate (PEM).")
    group.addoption("--xmpp-update-golden", action="store_true", help="Write golden files (xmpp_pipeline) anew.")
    group.addoption(
        "--xmpp-unused",
        choices=["off", "warn", "error"],
        default="warn",
        help="What to do about cassettes that no test uses; only looked at when all tests were collected.",
    )
    group.addoption("--xmpp-artifacts", metavar="DIR", help="Leave report and live conversation of failed tests here.")
    group.addoption("--xmpp-step-seconds", type=float, metavar="S", help="How long to wait for the next stanza.")
    group.addoption("--xmpp-pace", choices=["fast", "recorded"], help="recorded: with the pauses of the recording.")
    parser.addini("xmpp_cassette_dir", "Where cassettes lie, from the test file's directory.", default="cassettes")


def pytest_configure(config: pytest.Config) -> None:
    """Announce the marker."""
    config.addinivalue_line(
        "markers",
        f"xmpp_cassette(name=None, *, accounts={{}}, {', '.join(_SETTINGS)}): the cassette of the test, from the "
        "directory `cassettes` beside the test file; without a name MODULE/TEST.xmpp.xml. accounts: passwords "
        "by account name.",
    )
    config.stash[_used] = _Paths()
    config.stash[_known] = _Paths()


def _paths(config: pytest.Config, key: "pytest.StashKey[_Paths]") -> _Paths:
    found: _Paths = config.stash[key]
    return found


# Which cassette.


def _cassette_path(node: pytest.Item) -> Path:
    """Return where the test's cassette lies, there or not."""
    directory = node.path.parent / str(node.config.getini("xmpp_cassette_dir"))
    marker = node.get_closest_marker("xmpp_cassette")
    if marker is not None and marker.args:
        return directory / str(marker.args[0])
    name = _UNSAFE.sub("-", node.name)[:_NAME_CHARS_MAX].strip("-")
    return directory / node.path.stem / f"{name}{_SUFFIX}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Note which cassettes there are and which tests name them, before anything is deselected by others."""
    for item in items:
        directory = item.path.parent / str(config.getini("xmpp_cassette_dir"))
        config.stash[_known].add(directory)
        if item.get_closest_marker("xmpp_cassette") or "xmpp_cassette" in getattr(item, "fixturenames", ()):
            config.stash[_used].add(_cassette_path(item))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand what was collected to the controller (pytest-xdist), or fail for unused cassettes."""
    config = session.config
    if (output := getattr(config, "workeroutput", None)) is not None:
        for key, name in ((_used, "xmpp_used"), (_known, "xmpp_known")):
            output[name] = [str(path) for path in sorted(_paths(config, key))]
        return
    if _unused(config) and config.getoption("--xmpp-unused") == "error" and session.exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """A worker of pytest-xdist is done: what it collected counts here."""
    output = getattr(node, "workeroutput", {})
    for key, name in ((_used, "xmpp_used"), (_known, "xmpp_known")):
        _paths(node.config, key).update(map(Path, output.get(name, ())))


def _unused(config: pytest.Config) -> list[Path]:
    """Return the cassettes that no collected test names; none where not all tests were collected."""
    option = config.option
    partly = option.keyword or option.markexpr or getattr(option, "deselect", None) or getattr(option, "lf", False)
    if partly or config.getoption("--xmpp-unused") == "off" or any("::" in str(arg) for arg in config.args):
        return []
    there = {
        path for directory in config.stash[_known] if directory.is_dir() for path in directory.rglob(f"*{_SUFFIX}")
    }
    return sorted(there - _paths(config, _used))


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Name unused cassettes."""
    unused = _unused(config)
    if not unused:
        return
    terminalreporter.section("XMPP cassettes that no test uses")
    for path in unused:
        shown = path.relative_to(config.rootpath) if path.is_relative_to(config.rootpath) else path
        terminalreporter.line(f"{shown}  (delete it, or name it in a marker xmpp_cassette)")


# Judging.


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Forget an earlier run of the same test (pytest-rerunfailures): its replays are judged, and stopped."""
    keys: tuple[pytest.StashKey[Any], ...] = (_handles, _recordings, _failed)
    for key in keys:
        if key in item.stash:
            del item.stash[key]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """When the test's own code has passed, judge its replays.

    Where clients are fixtures they leave later: whether they do is judged when the fake server's own fixture ends.
    """
    __tracebackhide__ = True
    result = yield
    for handle in item.stash.get(_handles, _Handles()):
        if hasattr(handle, "said_all") and not handle.said_all():
            handle.check()
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: "pytest.CallInfo[None]"
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add what the replays found: properties (they reach the JUnit file) and, of failed tests, a section."""
    if call.when == "call":
        item.stash[_failed] = call.excinfo is not None
        for handle in item.stash.get(_handles, _Handles()):
            if call.excinfo is not None and hasattr(handle, "stop"):
                handle.stop()  # nobody waits for the rest of a conversation that has failed
    if call.when == "teardown":  # pytest takes the properties of this phase
        reports = [report for handle in item.stash.get(_handles, _Handles()) for report in _reports_of(handle)]
        for report in reports:
            for case in report.cases:
                item.user_properties.extend((name, f"{case.name}: {value}") for name, value in case.properties)
    outcome = yield
    if call.when in ("call", "teardown") and outcome.failed and (handles := item.stash.get(_handles, _Handles())):
        from xproxy.pytest_tools import keep_artifacts, sections

        outcome.sections.extend(sections(handles, None if call.excinfo is None else call.excinfo.value))
        if (directory := item.config.getoption("--xmpp-artifacts")) is not None:
            keep_artifacts(Path(directory), item.nodeid, handles)
    return outcome


def _reports_of(handle: Any) -> "list[Report]":
    if hasattr(handle, "reports"):
        return list(handle.reports)
    found = handle._report if hasattr(handle, "_report") else None
    return [] if found is None else [found]


# Fixtures.


@pytest.fixture(scope="session")
def xmpp_ca(tmp_path_factory: pytest.TempPathFactory) -> "Ca":
    """A certificate authority for this test run: ``.path`` (PEM), ``.environment`` for clients in subprocesses."""
    from xproxy.pytest_tools import Ca

    return Ca(tmp_path_factory.mktemp("xmpp-ca"))


@pytest.fixture
def xmpp_accounts(request: pytest.FixtureRequest) -> dict[str, str]:
    """Passwords by account name; override it, or give ``accounts`` to the marker. Others get one made up."""
    marker = request.node.get_closest_marker("xmpp_cassette")
    return dict(marker.kwargs.get("accounts", {})) if marker is not None else {}


@pytest.fixture
def xmpp_cassette(request: pytest.FixtureRequest) -> Path:
    """The path of the test's cassette."""
    return _cassette_path(request.node)


def _settings(request: pytest.FixtureRequest) -> Any:
    from xproxy.config.replay import ReplaySettings

    marker = request.node.get_closest_marker("xmpp_cassette")
    given = {} if marker is None else {name: marker.kwargs[name] for name in _SETTINGS if name in marker.kwargs}
    unknown = set() if marker is None else set(marker.kwargs) - {*_SETTINGS, "accounts"}
    if unknown:
        raise pytest.UsageError(f"{request.node.nodeid}: xmpp_cassette knows no {', '.join(sorted(unknown))}")
    if (seconds := request.config.getoption("--xmpp-step-seconds")) is not None:
        given["step_seconds"] = seconds
    if (pace := request.config.getoption("--xmpp-pace")) is not None:
        given["pace"] = pace
    return ReplaySettings(**given)


def _passwords(cassette: Any, given: dict[str, str]) -> dict[str, str]:
    return {account.name: given.get(account.name) or secrets.token_urlsafe(12) for account in cassette.accounts}


def _read(path: Path) -> Any:
    from xproxy.capture.cassette_xml import read_cassette
    from xproxy.errors import XproxyError

    try:
        return read_cassette(path)
    except XproxyError as problem:
        record = "record it: pytest --xmpp-record=all --xmpp-upstream HOST:PORT"
        pytest.fail(f"{problem}\n{record}" if not path.exists() else str(problem), pytrace=False)


@pytest.fixture
def xmpp_replay_server(
    request: pytest.FixtureRequest, xmpp_ca: "Ca", xmpp_cassette: Path, xmpp_accounts: dict[str, str], tmp_path: Path
) -> "Iterator[ServerHandle | Recording]":
    """A server that plays the test's cassette: ``.host .port .domain .ca_path .environment .account(name)``.

    The test is judged when its own code is done; ``.check()`` and ``.report()`` wait for that inside the test.
    With --xmpp-record=all it is a recording proxy before the real server instead.
    """
    handle: Any
    if request.config.getoption("--xmpp-record") == "all":
        from xproxy.pytest_tools import Recording

        handle = Recording.start(request, tmp_path / "xmpp-recording", xmpp_cassette, xmpp_accounts)
        request.node.stash.setdefault(_recordings, []).append(handle)
        try:
            yield handle
        finally:
            handle.finish(passed=request.node.stash.get(_failed, True) is False)
        return
    from xproxy.pytest_threads import ServerHandle

    cassette = _read(xmpp_cassette)
    handle = ServerHandle(
        cassette,
        tls=xmpp_ca.server_context(cassette.sessions[0].domain),
        ca_path=xmpp_ca.path,
        passwords=_passwords(cassette, xmpp_accounts),
        settings=_settings(request),
        accept=f"pytest --xmpp-record=all --xmpp-upstream HOST:PORT '{request.node.nodeid}'",
    )
    request.node.stash.setdefault(_handles, _Handles()).append(handle)
    try:
        yield handle
        if request.node.stash.get(_failed, True) is False:
            handle.check()  # again, or for the first time: who had to leave has had the time
    finally:
        handle.stop()


@pytest.fixture
def xmpp_replay_client(
    request: pytest.FixtureRequest, xmpp_cassette: Path, xmpp_accounts: dict[str, str]
) -> "ClientHandle":
    """The clients of the test's cassette: ``.check(host, port, ca=...)`` plays them and raises, ``.run`` returns."""
    from xproxy.pytest_threads import ClientHandle

    cassette = _read(xmpp_cassette)
    handle = ClientHandle(cassette, _passwords(cassette, xmpp_accounts), _settings(request))
    request.node.stash.setdefault(_handles, _Handles()).append(handle)
    return handle


@pytest.fixture
def xproxy_server(tmp_path: Path) -> "Iterator[Callable[..., ProxyHandle]]":
    """Start real proxies: ``xproxy_server("127.0.0.1:5222", domain="example.test", upstream_ca=path)``.

    What it returns has ``.host .port .ca_path .environment .records() .captures()``; all end with the test.
    """
    from xproxy.pytest_tools import ProxyHandle

    started: list[ProxyHandle] = []

    def start(upstream: str, **options: Any) -> ProxyHandle:
        started.append(ProxyHandle(tmp_path / f"xproxy-{len(started) + 1}", upstream, **options))
        return started[-1]

    try:
        yield start
    finally:
        for handle in reversed(started):
            handle.stop()


@pytest.fixture
def xmpp_pipeline(request: pytest.FixtureRequest) -> "Callable[[Path | str], Pipeline]":
    """Captures through the analysis, offline: ``xmpp_pipeline("x.xcap.jsonl").assert_golden()``.

    Paths are those from the test file's directory. The golden file lies beside the capture (x.events.jsonl);
    --xmpp-update-golden writes it anew.
    """
    from xproxy.pytest_tools import Pipeline

    directory = request.node.path.parent
    update = bool(request.config.getoption("--xmpp-update-golden"))
    return lambda path: Pipeline(directory / path, update)
