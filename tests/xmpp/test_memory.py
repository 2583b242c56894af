"""What is remembered of a domain."""

from tests.support.dialogue import DECLARED_HEADER, FEATURES_SASL, FEATURES_TLS, SERVER_HEADER, Dialogue
from xproxy.events.tls import CertificateChanged, StarttlsStripped
from xproxy.jid import Jid
from xproxy.xmpp.memory import CERTIFICATES_MAX, Memory


def features(memory: Memory, which: str) -> Dialogue:
    return Dialogue(memory=memory).client(DECLARED_HEADER).server(SERVER_HEADER + which)


def test_an_offer_that_is_gone_is_stripped() -> None:
    memory = Memory()
    assert "starttls-stripped" not in features(memory, FEATURES_SASL).actions_seen()  # nothing to compare with
    assert "starttls-stripped" not in features(memory, FEATURES_TLS).actions_seen()
    assert features(memory, FEATURES_SASL).one(StarttlsStripped).domain == "example.org"


def test_features_behind_a_login_or_inside_tls_need_no_offer() -> None:
    memory = Memory()
    Dialogue(memory=memory).log_in()
    talk = Dialogue(memory=memory).client(DECLARED_HEADER).server(SERVER_HEADER + FEATURES_TLS)
    talk.client("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='ANONYMOUS'/>")
    talk.server("<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>" + SERVER_HEADER + FEATURES_SASL)
    assert "starttls-stripped" not in talk.actions_seen()


def test_another_certificate_is_told_once() -> None:
    memory = Memory()
    seen = [memory.previous_certificate("a", sha256) for sha256 in ("1", "1", "2", "1", "2")]
    assert seen == [None, None, "1", None, None]


def test_a_changed_certificate_is_an_event() -> None:
    memory = Memory()
    memory.previous_certificate("example.org", "11" * 32)
    talk = Dialogue(memory=memory).client(DECLARED_HEADER).server(SERVER_HEADER + FEATURES_TLS)
    talk.client("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")
    talk.server("<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>").secured()
    changed = talk.one(CertificateChanged)
    assert (changed.domain, changed.previous_sha256) == ("example.org", "11" * 32)


def test_memory_is_bounded() -> None:
    memory = Memory(domains_max=2)
    for domain in "abc":
        memory.previous_certificate(domain, "1")
    assert memory.previous_certificate("a", "2") is None
    assert memory.previous_certificate("c", "2") == "1"
    for number in range(CERTIFICATES_MAX + 1):
        memory.previous_certificate("d", str(number))
    assert memory.previous_certificate("d", "0") == str(CERTIFICATES_MAX)


def test_a_resumable_session_is_known_until_there_are_too_many() -> None:
    memory, juliet = Memory(resumable_max=2), Jid.from_text("juliet@example.org/balcony")
    for id_hash in "ab":
        memory.resumable(id_hash, juliet)
    assert memory.resumed("a") == juliet
    memory.resumable("c", juliet)
    assert memory.resumed("b") is None
    assert memory.resumed("a") == juliet
