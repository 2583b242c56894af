"""Invariant: any octets begin with a stream header, may yet do so, or are refused, and nothing else is raised.

Besides: what stands behind a header does not change it; a part of what is not refused is not refused; and where the
session core reads a header as well, both found the same domain, or a client could be connected to another server than
the log says it asked for.
"""

import sys

import harness

with harness.instrumented():
    from xproxy.config.stream import StreamLimits, StreamPolicy
    from xproxy.events import Side
    from xproxy.events.stream import StreamOpened
    from xproxy.xmpp.actions import LegMode, Observe
    from xproxy.xmpp.opening import Opening, OpeningRefused, read_opening
    from xproxy.xmpp.session import Session

WORDS = [
    b"<?xml version='1.0'?>", b"<stream:stream ", b" to='", b" from='", b"xmlns='jabber:client'", b" version='1.0'",
    b"xmlns:stream='http://etherx.jabber.org/streams'", b">", b"'", b'"', b"&#x61;", b"&amp;", b"<!DOCTYPE a>",
    b"<!-- -->", b"<![CDATA[", b"]]>", b"<?a b?>", b"\xc3\xbc", b"\xef\xbb\xbf", b"/>", b"xmlns:to='a'", b"s:to='b'",
]  # fmt: skip


def check(data: bytes) -> None:
    """Judge what a client begins with."""
    rng = harness.rng_of(data)
    outcome = read(data)
    prefix = read(data[: rng.randint(0, len(data))])
    if isinstance(outcome, Opening):
        assert read(data + b"<auth/></wrong>&") == outcome, "octets behind a header changed it"
        assert prefix in (None, outcome), "a part of a good header was refused, or says something else"
    if outcome is None:
        assert prefix is None, "a part of a beginning was refused"
    seen = opened(data)
    if seen is not None and isinstance(outcome, Opening):
        assert seen.to == outcome.to, "the session is for another domain"


def read(data: bytes) -> Opening | OpeningRefused | None:
    """Return what becomes of ``data``."""
    try:
        return read_opening(data)
    except OpeningRefused as refused:
        return refused


def opened(data: bytes) -> StreamOpened | None:
    """Return what the session core says of the first header in ``data``."""
    session = Session(limits=StreamLimits(), policy=StreamPolicy(), mode=LegMode.CLEAR, at_ns=0)
    for action in session.receive(Side.CLIENT, data, 0):
        if isinstance(action, Observe) and isinstance(action.event, StreamOpened):
            return action.event
    return None


if __name__ == "__main__":
    sys.exit(harness.main("opening", check, words=WORDS, quick=50_000))
