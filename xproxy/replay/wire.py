"""Stanzas of a replay as octets, and the few that need no script."""

from xproxy.capture.cassette import LIVE_FEATURES
from xproxy.capture.node import Node, render
from xproxy.peer import services
from xproxy.xmpp import ns


def is_replayed_feature(feature: Node) -> bool:
    """Whether a stream feature stands in a cassette: what is live, or cannot be replayed, does not."""
    return feature.tag not in LIVE_FEATURES


def to_wire(stanza: Node) -> bytes:
    """Return a first-level element as it is sent in a stream of jabber:client."""
    if stanza.namespace != ns.STREAMS:
        return render(stanza).encode()
    # By its prefix, which the stream's root declares and some clients look for.
    inside = "".join(item if isinstance(item, str) else render(item) for item in stanza.content)
    return f"<stream:{stanza.local}>{inside}</stream:{stanza.local}>".encode()


def is_ping(stanza: Node) -> bool:
    """Whether it is a ping (XEP-0199) and nothing besides: answered live, unless it is in the script."""
    return (
        stanza.tag == f"{{{ns.CLIENT}}}iq"
        and stanza.get("type") == "get"
        and stanza.child(services.PING, "ping") is not None
        and len(stanza.content) == 1
    )


def is_ping_answer(stanza: Node) -> bool:
    """Whether it may be the answer to a ping: an empty result."""
    return stanza.tag == f"{{{ns.CLIENT}}}iq" and stanza.get("type") == "result" and not stanza.content
