"""What is said on stderr of servers that cannot be reached."""

import pytest

from xproxy.config.address import HostPort
from xproxy.config.upstream import UpstreamFrom
from xproxy.events import Level
from xproxy.log.watch import SERVERS_WATCHED_MAX, UpstreamWatch
from xproxy.record.recorder import Record


def test_a_server_that_is_down_is_said_once_and_so_is_its_return(caplog: pytest.LogCaptureFixture) -> None:
    def record(action: str) -> Record:
        return Record({"event": {"reason": "refused"}}, Level.INFO, action)

    watch = UpstreamWatch(HostPort("xmpp.example.org", 5222))
    watch.take([record("upstream-connected"), record("upstream-failed"), record("upstream-failed")])
    watch.take([record("stream-opened"), record("upstream-connected"), record("upstream-connected")])
    assert [message.split(",")[0] for message in caplog.messages] == [
        "the server xmpp.example.org:5222 cannot be reached (refused)",
        "the server xmpp.example.org:5222 can be reached again",
    ]


def test_servers_of_several_domains_are_told_apart(caplog: pytest.LogCaptureFixture) -> None:
    def record(action: str, domain: str, reason: str = "refused") -> Record:
        return Record({"event": {"reason": reason}, "xmpp": {"domain": domain}}, Level.INFO, action)

    watch = UpstreamWatch(UpstreamFrom.SRV)
    watch.take([record("upstream-failed", "one.example"), record("upstream-connected", "two.example")])
    watch.take([record("upstream-failed", "stranger.example", "domain-not-allowed")])
    watch.take([record("upstream-failed", "two.example"), record("upstream-connected", "one.example")])
    watch.take([record("upstream-failed", f"{number}.example") for number in range(1_000)])
    assert [message.split(",")[0] for message in caplog.messages[:3]] == [
        "the server of one.example cannot be reached (refused)",
        "the server of two.example cannot be reached (refused)",
        "the server of one.example can be reached again",
    ]
    assert len(caplog.messages) == 2 + SERVERS_WATCHED_MAX


def test_servers_that_strangers_name_are_not_the_operators_business(caplog: pytest.LogCaptureFixture) -> None:
    def record(domain: str) -> Record:
        return Record({"event": {"reason": "refused"}, "xmpp": {"domain": domain}}, Level.INFO, "upstream-failed")

    watch = UpstreamWatch(UpstreamFrom.SRV, frozenset({"own.example"}))
    watch.take([*(record(f"{number}.example") for number in range(1_000)), record("Own.example")])
    assert [message.split(",")[0] for message in caplog.messages] == [
        "the server of Own.example cannot be reached (refused)"
    ]
