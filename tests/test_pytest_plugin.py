"""The pytest plugin, in test runs of its own (pytester)."""

import sys
from pathlib import Path

import pytest
from lxml import etree

SAMPLE = Path(__file__).parent / "vectors" / "cassettes" / "v2.xmpp.xml"
pytest_plugins = ["pytester"]
pytestmark = pytest.mark.slow

# A client for the tests below: what a user's own client would do.
CLIENT = """
import trio
from xproxy.peer.client import Client, trusting


async def talk(server, body="I am.", password=None, presence=True):
    account = server.account("juliet")
    async with Client(host=server.host, port=server.port, domain=server.domain, tls=trusting(server.ca_path)) as client:
        await client.enter(account.user, password or account.password, "balcony")
        await client.roster()
        if presence:
            await client.send_presence()
            await client.expect("message")
            await client.send_message("romeo@example.test/garden", body)
        await client.close()
"""

PASSING = """
import trio, pytest
from talking import talk

@pytest.mark.xmpp_cassette("juliet.xmpp.xml")
def test_talk(xmpp_replay_server):
    trio.run(talk, xmpp_replay_server)
"""


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A directory with a cassette and a client."""
    for name in ("CI", "BUILD_NUMBER"):  # there pytest's summary has failures whole
        monkeypatch.delenv(name, raising=False)
    pytester.makepyfile(talking=CLIENT)
    cassettes = pytester.mkdir("cassettes")
    (cassettes / "juliet.xmpp.xml").write_text(SAMPLE.read_text())
    pytester.makefile(
        ".toml",
        pyproject="""
        [tool.pytest]
        strict = true
        filterwarnings = ["error"]
        pythonpath = ["."]
        """,
    )
    return pytester


def run(project: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    """Run it in a process of its own: with plugins loaded as they are for a user."""
    return project.runpytest_subprocess("-p", "no:cacheprovider", "-p", "no:trio", *arguments)


def test_a_test_whose_client_says_what_was_recorded_passes(project: pytest.Pytester) -> None:
    project.makepyfile(test_it=PASSING)
    result = run(project, "--junitxml", "junit.xml")
    result.assert_outcomes(passed=1)
    suite = etree.parse(project.path / "junit.xml")
    properties = {each.get("name"): each.get("value") for each in suite.iter("property")}
    assert properties["xproxy.matched"] == "session juliet: 3"
    assert properties["xproxy.redaction"] == "session juliet: default-1"


def test_a_changed_stanza_fails_the_test_and_is_shown(project: pytest.Pytester) -> None:
    project.makepyfile(test_it=PASSING.replace("talk, xmpp_replay_server", "talk, xmpp_replay_server, 'I am not.'"))
    result = run(project, "--xmpp-artifacts", "artifacts")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["*FAIL session juliet*", "*Mismatch: #7 *expected 'I am.', got 'I am not.'*", "*+  <body>I am not.</body>*"]
    )
    assert result.stdout.str().count("+  <body>I am not.</body>") == 1  # the failure has it, no section repeats it
    result.stdout.no_fnmatch_line("*Traceback*")
    (place,) = (project.path / "artifacts").iterdir()
    assert {path.name for path in place.iterdir()} == {
        "report-1.txt",
        "report-1.json",
        "live-1.xmpp.xml",
        "test.txt",
    }
    assert "<body>I am not.</body>" in (place / "live-1.xmpp.xml").read_text()


def test_a_missing_stanza_fails_the_test(project: pytest.Pytester) -> None:
    project.makepyfile(test_it=PASSING.replace("talk, xmpp_replay_server", "talk, xmpp_replay_server, '', None, False"))
    result = run(project)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*MissingStanza: #5 *did not come: the client left*"])


def test_a_test_that_fails_by_itself_does_not_wait_for_the_rest(project: pytest.Pytester) -> None:
    project.makepyfile(
        test_it="""
        import pytest

        @pytest.mark.xmpp_cassette("juliet.xmpp.xml")
        def test_talk(xmpp_replay_server):
            assert xmpp_replay_server.port == 0
        """
    )
    result = run(project)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*assert*== 0*"])
    assert result.duration < 30


def test_a_wrong_password_shows_no_password(project: pytest.Pytester) -> None:
    project.makepyfile(
        test_it="""
        import contextlib, trio, pytest
        from talking import talk
        from xproxy.peer.errors import PeerError

        @pytest.mark.xmpp_cassette("juliet.xmpp.xml", accounts={"juliet": "canary-right"}, step_seconds=0.5)
        def test_talk(xmpp_replay_server):
            with contextlib.suppress(PeerError):
                trio.run(talk, xmpp_replay_server, "", "canary-wrong")
        """
    )
    result = run(project)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*Auth: the client's login was refused: not-authorized*"])
    result.stdout.no_fnmatch_line("*canary-right*not*")
    report = [line for line in result.stdout.lines if line.startswith("E ")]
    assert not any("canary" in line for line in report)


def test_a_test_that_is_run_again_is_judged_anew(project: pytest.Pytester) -> None:
    """As pytest-rerunfailures does it: the same item, a second time."""
    project.makeconftest(
        """
        from _pytest.runner import runtestprotocol

        def pytest_runtest_protocol(item, nextitem):
            for last in (False, True):
                item._initrequest()
                reports = runtestprotocol(item, nextitem=nextitem, log=False)
                if last:
                    for report in reports:
                        item.ihook.pytest_runtest_logreport(report=report)
            return True
        """
    )
    project.makepyfile(
        test_it="""
        import trio, pytest
        from talking import talk
        runs = []

        @pytest.mark.xmpp_cassette("juliet.xmpp.xml", step_seconds=0.3, total_seconds=20)
        def test_talk(xmpp_replay_server):
            runs.append(1)
            assert len(runs) > 1
            trio.run(talk, xmpp_replay_server)
        """
    )
    run(project).assert_outcomes(passed=1)


def test_asyncio_and_subprocesses_are_fine(project: pytest.Pytester) -> None:
    project.makepyfile(
        test_it="""
        import asyncio, subprocess, sys, trio, pytest
        from talking import talk

        @pytest.mark.xmpp_cassette("juliet.xmpp.xml")
        def test_beside_asyncio(xmpp_replay_server):
            async def main():
                await asyncio.to_thread(trio.run, talk, xmpp_replay_server)
            asyncio.run(main())

        SCRIPT = '''
        import os, sys, types, trio
        from talking import talk
        account = types.SimpleNamespace(user="juliet", password=sys.argv[2])
        server = types.SimpleNamespace(host="127.0.0.1", port=int(sys.argv[1]), domain="example.test",
                                       ca_path=os.environ["SSL_CERT_FILE"], account=lambda name: account)
        trio.run(talk, server)
        '''

        @pytest.mark.xmpp_cassette("juliet.xmpp.xml")
        def test_a_subprocess(xmpp_replay_server, tmp_path):
            import os, textwrap
            server = xmpp_replay_server
            command = [sys.executable, "-c", textwrap.dedent(SCRIPT), str(server.port), server.account().password]
            subprocess.run(command, check=True, env=os.environ | server.environment)
        """
    )
    run(project).assert_outcomes(passed=2)


def test_clients_that_are_fixtures_leave_when_the_test_is_done(project: pytest.Pytester) -> None:
    project.makepyfile(
        test_it="""
        import contextlib, trio, pytest
        from xproxy.peer.client import Client, trusting
        from xproxy.pytest_threads import Background

        @pytest.fixture(params=[True, False])
        def app(request, xmpp_replay_server):
            server = xmpp_replay_server
            account = server.account("juliet")

            async def run(task_status):
                async with Client(host=server.host, port=server.port, domain=server.domain,
                                  tls=trusting(server.ca_path)) as client:
                    await client.enter(account.user, account.password, "balcony")
                    await client.roster()
                    await client.send_presence()
                    await client.expect("message")
                    await client.send_message("romeo@example.test/garden", "I am.")
                    leave = trio.Event()
                    task_status.started(leave)
                    await leave.wait()
                    await client.close()

            app = Background(run, "app")
            yield app
            if request.param:
                app.call(app.value.set)
                app.join()
            else:
                server.stop = lambda: app.stop()  # it stays until the fake server is gone

        @pytest.mark.xmpp_cassette("juliet.xmpp.xml", linger_seconds=0.1, step_seconds=0.8)
        def test_talk(app):
            pass
        """
    )
    result = run(project, "--junitxml", "junit.xml")
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(
        ["*ERROR at teardown of test_talk?False?*", "*#8 <close/> did not come: the client was*"]
    )
    properties = [each.get("value") for each in etree.parse(project.path / "junit.xml").iter("property")]
    assert properties.count("session juliet: 3") == 2


def test_with_xdist(project: pytest.Pytester) -> None:
    project.makepyfile(
        test_it="""
        import trio, pytest
        from talking import talk

        @pytest.mark.parametrize("number", range(4))
        @pytest.mark.xmpp_cassette("juliet.xmpp.xml")
        def test_talk(xmpp_replay_server, number):
            trio.run(talk, xmpp_replay_server)
        """
    )
    result = run(project, "-n", "2")
    result.assert_outcomes(passed=4)
    result.stdout.no_fnmatch_line("*cassettes that no test uses*")


@pytest.mark.parametrize("workers", [(), ("-n", "2")])
def test_cassettes_that_no_test_uses_are_named(project: pytest.Pytester, workers: tuple[str, ...]) -> None:
    (project.path / "cassettes" / "old.xmpp.xml").write_text(SAMPLE.read_text())
    project.makepyfile(test_it=PASSING)
    result = run(project, *workers)
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*cassettes that no test uses*", "cassettes/old.xmpp.xml*"])
    assert run(project, "--xmpp-unused=error", *workers).ret == 1
    for partly in (("-k", "talk"), ("test_it.py::test_talk",), ("--xmpp-unused=off",)):
        run(project, *partly, *workers).stdout.no_fnmatch_line("*cassettes that no test uses*")


def test_a_cassette_is_named_after_its_test(project: pytest.Pytester) -> None:
    project.makepyfile(
        test_it="""
        def test_name(xmpp_cassette):
            assert xmpp_cassette.parts[-3:] == ("cassettes", "test_it", "test_name.xmpp.xml")
        """
    )
    run(project).assert_outcomes(passed=1)


def test_a_cassette_that_is_not_there_says_how_to_record_it(project: pytest.Pytester) -> None:
    project.makepyfile(test_it="def test_new(xmpp_replay_server):\n    pass\n")
    result = run(project)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*cannot read the cassette*", "*pytest --xmpp-record=all --xmpp-upstream*"])


def test_an_option_of_the_marker_that_is_not_known_is_said(project: pytest.Pytester) -> None:
    project.makepyfile(test_it=PASSING.replace('xmpp.xml"', 'xmpp.xml", pase="fast"'))
    result = run(project)
    assert result.ret != 0
    result.stdout.fnmatch_lines(["*xmpp_cassette knows no pase*"])


def test_the_clients_of_a_cassette_against_a_server(project: pytest.Pytester) -> None:
    project.makepyfile(
        test_it="""
        import pytest
        from xproxy.pytest_threads import ReplayFailed

        ACCOUNTS = {"juliet": "of-both-ends"}

        @pytest.mark.xmpp_cassette("juliet.xmpp.xml", accounts=ACCOUNTS)
        def test_both_ends(xmpp_replay_server, xmpp_replay_client):
            server = xmpp_replay_server
            report = xmpp_replay_client.check(server.host, server.port, ca=server.ca_path)
            assert report.exit_code == 0

        @pytest.mark.xmpp_cassette("juliet.xmpp.xml", accounts=ACCOUNTS, step_seconds=0.5)
        def test_a_difference_raises(xmpp_ca, xmpp_replay_client):
            from xproxy.capture.cassette_xml import parse_cassette, render_cassette
            from xproxy.pytest_threads import ServerHandle
            from xproxy.config.replay import ReplaySettings
            other = parse_cassette(render_cassette(xmpp_replay_client.cassette).replace(b"Art thou", b"Wert thou"))
            server = ServerHandle(other, tls=xmpp_ca.server_context("example.test"), ca_path=xmpp_ca.path,
                                  passwords=ACCOUNTS, settings=ReplaySettings(step_seconds=0.5))
            with pytest.raises(ReplayFailed, match="Art thou there"):
                xmpp_replay_client.check(server.host, server.port, ca=server.ca_path)
            server.stop()
        """
    )
    run(project).assert_outcomes(passed=2)


def test_a_real_proxy_between(project: pytest.Pytester) -> None:
    project.makepyfile(
        test_it="""
        import trio, types, pytest
        from talking import talk

        @pytest.mark.xmpp_cassette("juliet.xmpp.xml")
        def test_through_the_proxy(xmpp_replay_server, xproxy_server):
            server = xmpp_replay_server
            proxy = xproxy_server(f"{server.host}:{server.port}", domain=server.domain, upstream_ca=server.ca_path)
            seen = types.SimpleNamespace(host=proxy.host, port=proxy.port, domain=server.domain,
                                         ca_path=proxy.ca_path, account=server.account)
            trio.run(talk, seen)
            server.check()
            proxy.stop()
            actions = [record["event"]["action"] for record in proxy.records()]
            assert "session-established" in actions
        """
    )
    run(project).assert_outcomes(passed=1)


def test_the_plugin_is_light(project: pytest.Pytester) -> None:
    project.makepyfile(
        test_it="""
        import sys

        def test_nothing_was_imported():
            assert not {"trio", "lxml", "cryptography", "xproxy.capture"} & sys.modules.keys()
        """
    )
    result = project.runpython_c(
        "import sys, xproxy.pytest_plugin; "
        "sys.exit(bool({'trio', 'lxml', 'cryptography', 'attrs', 'click'} & sys.modules.keys()))"
    )
    assert result.ret == 0, sys.version


RECORDED = """
import pytest, trio
from xproxy.peer.client import Client, trusting

@pytest.mark.xmpp_cassette("new.xmpp.xml", accounts={ACCOUNT: "canary-of-juliet"})
def test_talk(xmpp_replay_server):
    server = xmpp_replay_server
    account = server.account("juliet")

    async def talk():
        async with Client(host=server.host, port=server.port, domain=server.domain,
                          tls=trusting(server.ca_path)) as client:
            await client.enter(account.user, account.password, "balcony")
            await client.send_message("echo@example.test", "hello")
            message = await client.expect("message")
            assert "".join(message.itertext()) == "hello"
            await client.close()

    trio.run(talk)
    assert PASSES
"""


def test_recording_replaces_a_cassette_only_after_a_passing_test(project: pytest.Pytester, tmp_path: Path) -> None:
    from tests.support.peer import DOMAIN, make_trust
    from xproxy.config.address import HostPort
    from xproxy.peer.server import Server
    from xproxy.pytest_threads import Background

    trust = make_trust(tmp_path)
    server = Server(domain=DOMAIN, passwords={"juliet": "canary-of-juliet"}, tls=trust.server)
    upstream: Background[HostPort, None] = Background(
        lambda task_status: server.serve(task_status=task_status), "upstream"
    )
    cassette = project.path / "cassettes" / "new.xmpp.xml"
    where = ("--xmpp-upstream", str(upstream.value), "--xmpp-upstream-ca", str(trust.mint.ca_file))

    def once(passes: bool, *arguments: str) -> pytest.RunResult:
        source = RECORDED.replace("PASSES", str(passes)).replace("ACCOUNT", '"juliet@example.test"')
        (project.path / "test_new.py").write_text(source if arguments else source.replace('@example.test"', '"', 1))
        return run(project, "test_new.py", *arguments)

    try:
        once(False, "--xmpp-record=all", *where).assert_outcomes(failed=1)
        assert not cassette.exists()
        once(True, "--xmpp-record=all", *where).assert_outcomes(passed=1)
        first = cassette.read_bytes()
        assert b"<body>hello</body>" in first
        assert b"canary" not in first
        once(False, "--xmpp-record=all", *where).assert_outcomes(failed=1)
        assert cassette.read_bytes() == first
    finally:
        upstream.stop()
    once(True).assert_outcomes(passed=1)  # without any server


def test_a_capture_is_compared_with_its_golden_events(project: pytest.Pytester) -> None:
    project.makepyfile(
        test_capture="""
        import pathlib, trio, types, pytest
        from talking import talk

        @pytest.mark.xmpp_cassette("juliet.xmpp.xml")
        def test_capture(xmpp_replay_server, xproxy_server):
            server = xmpp_replay_server
            proxy = xproxy_server(
                f"{server.host}:{server.port}", domain=server.domain, upstream_ca=server.ca_path, capture=True
            )
            seen = types.SimpleNamespace(host=proxy.host, port=proxy.port, domain=server.domain,
                                         ca_path=proxy.ca_path, account=server.account)
            trio.run(talk, seen)
            proxy.stop()
            (capture,) = proxy.captures()
            (pathlib.Path(__file__).parent / "it.xcap.jsonl").write_bytes(capture.read_bytes())
        """
    )
    run(project, "test_capture.py").assert_outcomes(passed=1)
    (project.path / "test_capture.py").unlink()
    project.makepyfile(
        test_it="""
        def test_golden(xmpp_pipeline):
            pipeline = xmpp_pipeline("it.xcap.jsonl")
            pipeline.assert_golden()
        """
    )
    result = run(project)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*write it with pytest --xmpp-update-golden*"])
    run(project, "--xmpp-update-golden").assert_outcomes(passed=1)
    golden = project.path / "it.events.jsonl"
    assert golden.read_bytes().count(b"\n") > 1
    run(project).assert_outcomes(passed=1)
    lines = golden.read_text().splitlines(keepends=True)
    golden.write_text("".join(lines[:-1]))
    result = run(project)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*it.events.jsonl differs*"])
