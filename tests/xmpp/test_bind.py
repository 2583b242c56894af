"""Requests to bind, and their answers."""

from lxml import etree

from xproxy.events import Side
from xproxy.events.session import BindFailed, ResourceBound
from xproxy.events.stanza import RequestFacts
from xproxy.xmpp.bind import Binding

BIND = "urn:ietf:params:xml:ns:xmpp-bind"
REQUEST = RequestFacts(sent_by=Side.CLIENT, type="set", payload=f"{{{BIND}}}bind", age_ns=1)


def iq(type_: str, inside: str) -> etree._Element:
    return etree.fromstring(f"<iq xmlns='jabber:client' type='{type_}'>{inside}</iq>")


def bind(inside: str = "") -> str:
    return f"<bind xmlns='{BIND}'>{inside}</bind>"


BOUND = iq("result", bind("<jid>juliet@example.org/x</jid>"))


def asked(type_: str = "set", resource: str = "<resource>balcony</resource>") -> Binding:
    binding = Binding(server_text=True)
    binding.requested(iq(type_, bind(resource)), 10)
    return binding


def test_what_was_asked_for_and_what_was_given() -> None:
    bound = asked().answered(BOUND, REQUEST, 25)
    assert isinstance(bound, ResourceBound)
    assert (str(bound.jid), bound.resource_requested, bound.duration_ns) == ("juliet@example.org/x", "balcony", 15)


def test_a_result_says_itself_what_it_is() -> None:
    assert isinstance(asked().answered(BOUND, None, 0), ResourceBound)


def test_only_a_set_asks() -> None:
    assert asked("get").answered(BOUND, REQUEST, 0) is None


def test_answers_to_others_and_answers_without_an_address_are_none() -> None:
    other = RequestFacts(sent_by=Side.CLIENT, type="get", payload="{jabber:iq:roster}query", age_ns=1)
    assert asked().answered(iq("result", ""), other, 0) is None
    for jid in ("", "<jid/>", "<jid>@</jid>"):
        assert asked().answered(iq("result", bind(jid)), REQUEST, 0) is None


def test_a_refusal_and_a_second_request() -> None:
    binding = asked(resource="")
    error = "<error type='cancel'><conflict xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>"
    failed = binding.answered(iq("error", error), REQUEST, 0)
    assert isinstance(failed, BindFailed)
    assert (failed.condition, failed.resource_requested) == ("conflict", None)
    assert binding.answered(BOUND, REQUEST, 0) is None  # nobody asks now
    binding.requested(iq("set", bind()), 0)
    assert isinstance(binding.answered(BOUND, REQUEST, 0), ResourceBound)
