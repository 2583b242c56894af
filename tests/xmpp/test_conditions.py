"""Every condition of RFC 6120 sections 4.9.3, 6.5 and 8.3.3, and any other word in its place, is data."""

import pytest

from tests.support.dialogue import DECLARED_HEADER, FEATURES_SASL, PLAIN, SERVER_HEADER, Dialogue
from xproxy.events.sasl import SaslFailed
from xproxy.events.stanza import StanzaError
from xproxy.events.stream import StreamError
from xproxy.xmpp import ns

UNKNOWN = ["bad-protocol", "invalid-id", "payment-required", "Überraschung", "x" * 300]


@pytest.mark.parametrize("condition", [*sorted(ns.STREAM_CONDITIONS), *UNKNOWN])
def test_of_streams(condition: str) -> None:
    talk = Dialogue().client(DECLARED_HEADER).server(SERVER_HEADER)
    talk.server(f"<stream:error><{condition} xmlns='{ns.STREAM_ERRORS}'/></stream:error></stream:stream>")
    error = talk.one(StreamError)
    assert error.condition_known is (condition in ns.STREAM_CONDITIONS)
    assert error.condition == condition or len(condition) > len(error.condition)


@pytest.mark.parametrize("condition", [*sorted(ns.SASL_CONDITIONS), *UNKNOWN])
def test_of_logins(condition: str) -> None:
    talk = Dialogue().client(DECLARED_HEADER).server(SERVER_HEADER + FEATURES_SASL).client(PLAIN)
    talk.server(f"<failure xmlns='{ns.SASL}'><{condition}/></failure>")
    failed = talk.one(SaslFailed)
    assert failed.condition_known is (condition in ns.SASL_CONDITIONS)
    assert failed.cause is not None or condition not in ns.SASL_CONDITIONS


@pytest.mark.parametrize("sent_by", ["client", "server"])
@pytest.mark.parametrize("condition", [*sorted(ns.STANZA_CONDITIONS), *UNKNOWN])
def test_of_stanzas(condition: str, sent_by: str) -> None:
    talk = Dialogue().log_in()
    for kind in ("iq", "message", "presence"):
        error = f"<error type='cancel'><{condition} xmlns='{ns.STANZA_ERRORS}'/></error>"
        stanza = f"<{kind} type='error' id='e'>{error}</{kind}>"
        (talk.client if sent_by == "client" else talk.server)(stanza)
    errors = [event for event in talk.events if isinstance(event, StanzaError)]
    assert [error.stanza.kind for error in errors] == ["iq", "message", "presence"]
    assert {error.condition_known for error in errors} == {condition in ns.STANZA_CONDITIONS}
