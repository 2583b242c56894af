"""The budget of XML names a connection may make this process remember.

lxml before 7.0 interns element names, attribute names, prefixes and namespace names in one dictionary a thread, which
is never emptied. A stranger could fill the memory for good, so each connection may add only so many. When all together
have added too many, the thread is given another dictionary (``renew_dictionary``): lxml keeps it in the thread's state,
as it must for parsers that are used in several threads, and below the first one, which holds what was known before the
first stranger. The old one is freed with the last parser and tree that were made with it.
"""

import threading
from typing import Final

from lxml import etree

from xproxy.config.stream import StreamLimits

SLICE_BYTES: Final = 8_192  # after login: overshoots a budget by 2 700 names at most, and slicing costs 1 us in 8 KiB

_WARMED: Final = threading.local()  # each thread has a dictionary of its own

_CONTEXT: Final = "_ParserDictionaryContext"  # lxml/parser.pxi: under this name a thread's dictionary is kept

MARKUP_OCTETS: Final = 32
"""Before login each ">" of an element, and each pair of quotes, counts for so many octets. A tree takes up to 300
octets a node: 64 KiB of the smallest elements took 2.9 to 4.0 MiB, and 1 000 strangers 3 GB. So counted they take 0.5
MiB at most. Of text the whole 64 KiB are left, and of a form 2 000 tags and attributes."""

# What any session says before or at login. Known beforehand, so that the first stranger after a start is not charged
# for the vocabulary of XMPP itself. Sources: RFC 6120, XEP-0388, XEP-0386, XEP-0484, XEP-0198, XEP-0138, XEP-0440.
_NAMES: Final = """
    stream features starttls required proceed failure error text to from id version lang type iq message presence
    mechanisms mechanism auth challenge response success abort sasl-channel-binding channel-binding bind jid resource
    session optional register ver sm enable enabled resume resumed failed r a h max location resumption previd csi
    compression method compress compressed compression-failed authentication authenticate inline initial-response
    user-agent software device additional-data authorization-identifier continue tasks task next upgrade bound tag
    fast token request-token invalidate expiry count limits max-bytes idle-seconds hostname c xmlns hash node ext
    body subject thread show status priority query item group name subscription ask ping code by
    aborted account-disabled credentials-expired encryption-required incorrect-encoding invalid-authzid
    invalid-mechanism malformed-request mechanism-too-weak not-authorized temporary-auth-failure
    bad-format bad-namespace-prefix conflict connection-timeout host-gone host-unknown improper-addressing
    internal-server-error invalid-from invalid-id invalid-namespace invalid-xml not-well-formed policy-violation
    remote-connection-failed reset resource-constraint restricted-xml see-other-host system-shutdown
    undefined-condition unsupported-encoding unsupported-feature unsupported-stanza-type unsupported-version
    bad-request feature-not-implemented forbidden gone item-not-found jid-malformed not-acceptable not-allowed
    payment-required recipient-unavailable redirect registration-required remote-server-not-found
    remote-server-timeout service-unavailable subscription-required unexpected-request
    stream:stream stream:features stream:error xml:lang
"""
_NAMESPACES: Final = """
    jabber:client jabber:server jabber:component:accept http://etherx.jabber.org/streams
    urn:ietf:params:xml:ns:xmpp-tls urn:ietf:params:xml:ns:xmpp-sasl urn:ietf:params:xml:ns:xmpp-bind
    urn:ietf:params:xml:ns:xmpp-session urn:ietf:params:xml:ns:xmpp-streams urn:ietf:params:xml:ns:xmpp-stanzas
    urn:xmpp:sasl:2 urn:xmpp:bind:0 urn:xmpp:fast:0 urn:xmpp:sasl-cb:0 urn:xmpp:sm:2 urn:xmpp:sm:3 urn:xmpp:csi:0
    urn:xmpp:sasl:upgrade:0 urn:xmpp:stream-limits:0 urn:xmpp:features:pre-approval urn:xmpp:features:rosterver
    urn:xmpp:features:dialback urn:xmpp:invite urn:xmpp:ibr-token:0 urn:xmpp:ping urn:xmpp:carbons:2
    http://jabber.org/features/iq-register http://jabber.org/features/iq-auth http://jabber.org/features/compress
    http://jabber.org/protocol/compress http://jabber.org/protocol/caps http://jabber.org/protocol/disco#info
    http://jabber.org/protocol/disco#items jabber:iq:roster jabber:iq:auth jabber:iq:register jabber:iq:version
    jabber:server:dialback vcard-temp vcard-temp:x:update
"""


def warm() -> None:
    """Make the vocabulary of XMPP known to the parsers of this thread, once."""
    if not getattr(_WARMED, "is_done", False):
        _warm()
        _WARMED.is_done = True


def _warm() -> None:
    parser = etree.XMLParser(encoding="utf-8", resolve_entities="internal", no_network=True, collect_ids=False)
    prefixes = "".join(f" xmlns:n{i}='{name}'" for i, name in enumerate(_NAMESPACES.split()))
    elements = "".join(f"<{name}/>" for name in _NAMES.split() if name != "xmlns")
    etree.fromstring(
        f"<stream:stream xmlns:stream='http://etherx.jabber.org/streams'{prefixes}>{elements}</stream:stream>".encode(),
        parser,
    )


def renew_dictionary() -> bool:
    """Have the parsers and trees that this thread makes from now on remember names anew; False: lxml does not let us.

    Parsers that are at work go on with the old dictionary, and what they add there is counted by nobody: give them up.
    """
    warm()
    state = _thread_state()
    if state is None or state.pop(_CONTEXT, None) is None:
        return False
    _warm()  # adds nothing where the first one was the main thread's own: all others are below that one
    return True


def _thread_state() -> dict[str, object] | None:
    """The dictionary of the C API where extension modules keep what belongs to a thread."""
    try:
        import ctypes  # not every CPython is built with it
    except ImportError:
        return None
    get = getattr(getattr(ctypes, "pythonapi", None), "PyThreadState_GetDict", None)
    if get is None:
        return None
    get.restype, get.argtypes = ctypes.c_void_p, []
    address = get()
    state = None if not address else ctypes.cast(address, ctypes.py_object).value
    return state if isinstance(state, dict) else None


class NameTally:
    """New names that strangers of one client address have added, over all their connections."""

    __slots__ = ("max", "used")

    def __init__(self, names_max: int) -> None:
        self.max = names_max
        self.used = 0

    @property
    def is_spent(self) -> bool:
        """Whether no stranger of this address is served any more."""
        return self.used > self.max


class NameBudget:
    """New XML names one connection may add: both directions and all restarts together.

    It is told of the login, so the other limits that are tighter before it are here too. When the session is
    established the server's direction gets one of its own, ``relayed_to_client``: what it brings was written by
    others, and must not use up what the client may say.
    """

    __slots__ = (
        "_limits",
        "_strangers",
        "limit",
        "markup_octets",
        "max",
        "renewals",
        "slice_bytes",
        "stanza_bytes_max",
        "stanza_limit",
        "used",
    )

    def __init__(self, limits: StreamLimits, strangers: NameTally | None = None) -> None:
        """Begin before the login; ``strangers`` is told of every name until then."""
        warm()
        self._limits = limits
        self._strangers = strangers
        self.renewals: int | None = None  # None: to use it up ends the session; else how often it is filled again
        self.used = 0
        self.max = limits.names_before_login_max
        self.limit = "stream.names_before_login_max"  # the configuration key of ``max``
        self.slice_bytes = limits.slice_before_login_bytes  # the most a reader may feed at once
        self.stanza_bytes_max = min(limits.stanza_before_login_bytes_max, limits.stanza_bytes_max)
        self.stanza_limit = "stream.stanza_before_login_bytes_max"  # the configuration key of ``stanza_bytes_max``
        self.markup_octets = MARKUP_OCTETS  # what each tag and attribute counts for besides

    def add(self, count: int) -> None:
        """Count new names."""
        self.used += count
        strangers = self._strangers
        if strangers is not None and count:
            strangers.used += count
            if strangers.is_spent:
                self.used, self.max, self.limit = strangers.used, strangers.max, "sessions.names_per_address_max"

    def logged_in(self) -> None:
        """Give the connection the allowance of an authenticated one."""
        self._strangers = None
        self.max = self._limits.names_max
        self.limit = "stream.names_max"
        self.slice_bytes = SLICE_BYTES
        self.stanza_bytes_max = self._limits.stanza_bytes_max
        self.stanza_limit = "stream.stanza_bytes_max"
        self.markup_octets = 0

    def relayed_to_client(self) -> "NameBudget":
        """Return the budget of the server's direction of an established session.

        An element of another user that uses it up is skipped, and the budget filled again; a few times.
        """
        budget = NameBudget(self._limits)
        budget.logged_in()
        budget.renewals = self._limits.names_renewals_max
        return budget

    def renew(self) -> bool:
        """Fill the budget again; False: it was done too often."""
        assert self.renewals is not None
        self.renewals -= 1
        self.used = 0
        return self.renewals >= 0
