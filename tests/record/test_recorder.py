import attrs
import orjson

from tests.support.samples import CLIENT, FULL, JID, LISTENER, LOCAL, SERVER
from xproxy.events import Level, Side
from xproxy.events.connection import ConnectionAccepted, ConnectionRefused, UpstreamConnected
from xproxy.events.proxy import ProxyStarted
from xproxy.events.sasl import SaslFailed, SaslStarted, SaslSucceeded
from xproxy.events.session import ResourceBound, SessionEstablished
from xproxy.events.stream import StreamClosed, StreamOpened
from xproxy.events.tls import TlsEstablished
from xproxy.jid import Jid
from xproxy.record import fields
from xproxy.record.recorder import Observer, ProxyRecorder, SessionRecorder

OBSERVER = Observer(version="0.1.0", hostname="gw1", boot_id="b" * 32)
TRACE = "0123456789abcdef0123456789abcdef"
AT_NS = 1_700_000_000_000_000_000
CLOSED = StreamClosed(sent_by=Side.CLIENT)


def sample(event_type, **changes):
    return attrs.evolve(next(event for event in FULL if isinstance(event, event_type)), **changes)


def session(*events):
    """Return a recorder that has seen ``events``, and the document of the last one."""
    recorder = SessionRecorder(trace_id=TRACE, observer=OBSERVER)
    document = {}
    for event in events:
        document = recorder.record(event, AT_NS).document
    return recorder, document


def who(*events):
    _, document = session(*events)
    user, xmpp = document.get("user", {}), document["xmpp"]
    return user.get("name"), user.get("domain"), xmpp.get("jid"), xmpp.get("jid_source")


OPENED = sample(StreamOpened, from_=None)
STARTED = sample(SaslStarted, authzid=None)
SUCCEEDED = sample(SaslSucceeded, authzid=None)


def test_the_envelope():
    recorder, _ = session()
    record = recorder.record(CLOSED, AT_NS + 1_234)
    assert record.level is Level.INFO
    assert record.action == "stream-closed"
    assert orjson.loads(record.to_json()) == {
        "@timestamp": "2023-11-14T22:13:20.000001Z",
        "log": {"level": "info"},
        "message": "A direction was closed with its closing tag.",
        "event": {
            "id": f"{TRACE}-1",
            "kind": "event",
            "category": ["network"],
            "type": ["protocol", "end"],
            "action": "stream-closed",
            "dataset": "xproxy.stream",
            "module": "xproxy",
            "severity": 20,
        },
        "trace": {"id": TRACE},
        "ecs": {"version": fields.ECS_VERSION},
        "observer": {
            "type": "proxy",
            "vendor": "xproxy",
            "product": "xproxy",
            "version": "0.1.0",
            "hostname": "gw1",
        },
        "service": {"name": "xproxy", "ephemeral_id": "b" * 32},
        "network": {"transport": "tcp", "protocol": "xmpp"},
        "xmpp": {"sent_by": "client", "delegate": ["xmppStreamDidSendClosingStreamStanza:"]},
    }


def test_the_method_an_app_sees_called_is_named():
    _, document = session(sample(SaslFailed))
    assert document["xmpp"]["delegate"] == ["xmppStream:didNotAuthenticate:"]
    _, document = session(SUCCEEDED)
    assert "delegate" not in document["xmpp"]


def test_ids_count_the_records_of_a_session():
    _, document = session(CLOSED, CLOSED, CLOSED)
    assert document["event"]["id"] == f"{TRACE}-3"


def test_addresses_of_both_legs_are_on_every_record():
    _, document = session(
        ConnectionAccepted(client=CLIENT, listener=LISTENER),
        UpstreamConnected(host="xmpp.example.org", server=SERVER, local=LOCAL, seconds=0.5),
        CLOSED,
    )
    assert document["source"] == document["client"] == {"ip": CLIENT.ip, "port": CLIENT.port, "address": CLIENT.ip}
    assert document["destination"] == {"ip": SERVER.ip, "port": SERVER.port, "address": "xmpp.example.org"}
    assert document["server"] == document["destination"]
    assert document["xproxy"]["listener"] == {"ip": LISTENER.ip, "port": LISTENER.port}
    assert document["xproxy"]["upstream"]["local"] == {"ip": LOCAL.ip, "port": LOCAL.port}
    assert document["network"]["type"] == "ipv4"
    assert document["related"] == {"ip": [CLIENT.ip, SERVER.ip], "hosts": ["xmpp.example.org"]}


def test_trust_in_the_address_rises():
    claimed = sample(StreamOpened, from_="mallory@example.org")
    assert who(claimed, CLOSED) == ("mallory", "example.org", "mallory@example.org", "stream-from")
    assert who(claimed, STARTED, CLOSED) == ("romeo", "example.org", "romeo@example.org", "sasl-claimed")
    assert who(claimed, STARTED, SUCCEEDED, CLOSED)[3] == "sasl-success"
    bound = sample(ResourceBound)
    assert who(claimed, STARTED, SUCCEEDED, bound) == ("romeo", "example.org", str(JID), "bind-result")
    assert who(claimed, STARTED, SUCCEEDED, bound, CLOSED) == ("romeo", "example.org", str(JID), "bind-result")


def test_a_later_claim_does_not_cover_what_is_proven():
    assert who(OPENED, STARTED, SUCCEEDED, sample(StreamOpened, from_="mallory@example.org"), CLOSED) == (
        "romeo",
        "example.org",
        "romeo@example.org",
        "sasl-success",
    )


def test_a_failed_login_names_who_was_claimed_and_the_next_attempt_replaces_him():
    failed = sample(SaslFailed)
    assert who(OPENED, STARTED, failed) == ("romeo", "example.org", "romeo@example.org", "sasl-claimed")
    second = sample(SaslStarted, authcid="juliet", authzid=None, attempt=2)
    assert who(OPENED, STARTED, failed, second)[0] == "juliet"
    anonymous = sample(SaslStarted, mechanism="ANONYMOUS", authcid=None, authzid=None, attempt=2)
    assert who(OPENED, STARTED, failed, anonymous) == (None, None, None, None)


def test_an_authcid_may_be_a_whole_address():
    started = sample(SaslStarted, authcid="romeo@other.example", authzid=None)
    assert who(OPENED, started) == ("romeo", "other.example", "romeo@other.example", "sasl-claimed")


def test_the_address_is_the_one_the_user_acts_as():
    started = sample(SaslStarted, authcid="admin", authzid="romeo@example.org")
    assert who(OPENED, started) == ("admin", "example.org", "romeo@example.org", "sasl-claimed")
    external = sample(SaslStarted, mechanism="EXTERNAL", authcid=None, authzid="romeo@example.org")
    assert who(OPENED, external)[:2] == ("romeo", "example.org")


def test_without_a_stream_to_the_user_has_no_domain():
    assert who(STARTED) == ("romeo", None, "romeo", "sasl-claimed")


def test_a_resumed_session_is_named_when_it_is_known():
    resumed = SessionEstablished(how="resume", jid=Jid("romeo", "example.org", "r"), duration_ns=1)
    assert who(OPENED, STARTED, SUCCEEDED, resumed)[2:] == ("romeo@example.org/r", "resumed")
    assert who(OPENED, STARTED, SUCCEEDED, attrs.evolve(resumed, jid=None))[3] == "sasl-success"


def test_tls_of_the_client_and_the_verdict_on_the_server_stay():
    server = sample(TlsEstablished, leg=Side.SERVER, version="1.2", ja4=None, verify="off")
    client = sample(TlsEstablished, leg=Side.CLIENT, verify=None)
    _, document = session(server, client, CLOSED)
    assert document["tls"] == {"established": True, "version": "1.3", "version_protocol": "tls"}
    assert document["xproxy"]["tls"] == {"ja4": client.ja4}
    assert document["xproxy"]["upstream"]["verify"] == "off"


def test_a_peers_text_is_cleaned_wherever_it_shows_up():
    _, document = session(OPENED, sample(SaslStarted, authcid="a\u202e\ud800\nb", authzid=None))
    shown = "a\\u{202e}\\u{d800}\\u{a}b"
    assert document["user"]["name"] == shown
    assert document["related"]["user"] == [shown]
    assert document["xmpp"]["sasl"]["authcid"] == shown
    assert document["xmpp"]["jid"] == f"{shown}@example.org"


def test_what_was_cut_of_the_session_is_named_on_every_record():
    _, document = session(OPENED, sample(SaslStarted, authcid="a" * 2000, authzid=None), CLOSED)
    assert document["xproxy"]["truncated"] == ["user.name"]


def test_a_record_does_not_change_when_more_is_learnt():
    recorder, _ = session(OPENED)
    first = recorder.record(CLOSED, AT_NS)
    before = first.to_json()
    for event in FULL:
        recorder.record(event, AT_NS)
    assert first.to_json() == before


def test_the_same_events_give_the_same_records():
    assert [session(*FULL)[1]] == [session(*FULL)[1]]


def test_events_of_the_proxy_carry_the_run_and_no_trace():
    recorder = ProxyRecorder(observer=attrs.evolve(OBSERVER, node="a"))
    recorder.record(sample(ProxyStarted), AT_NS)
    document = recorder.record(sample(ConnectionRefused), AT_NS).document
    assert document["event"]["id"] == f"{'b' * 32}-2"
    assert "trace" not in document
    assert document["service"] == {"name": "xproxy", "node": {"name": "a"}, "ephemeral_id": "b" * 32}
    assert document["source"]["ip"] == CLIENT.ip


def test_what_is_known_step_by_step_is_what_is_known_at_once():
    recorder = SessionRecorder(trace_id=TRACE, observer=OBSERVER)
    for event in FULL:
        stepwise = recorder.record(event, AT_NS)
        recorder._template = None
        anew = recorder.record(event, AT_NS).document
        anew["event"] = stepwise.document["event"]
        assert stepwise.document == anew
