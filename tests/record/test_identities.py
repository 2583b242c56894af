import copy
import typing

import attrs
import jsonschema
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.samples import FULL, SAMPLES
from xproxy.events import Endpoint, Side
from xproxy.events.connection import ConnectionAccepted, ConnectionRefused
from xproxy.events.proxy import ProxyStarted
from xproxy.events.sasl import SaslStarted
from xproxy.events.session import ResourceBound
from xproxy.events.stanza import StanzaError
from xproxy.events.stream import StreamClosed, StreamOpened
from xproxy.jid import Jid
from xproxy.record.ecs import SHAPES, Scope
from xproxy.record.fields import FIELDS, Identity
from xproxy.record.identities import Identities, IdentityKey, month_of
from xproxy.record.recorder import Observer, ProxyRecorder, SessionRecorder
from xproxy.record.schema import event_schema

OBSERVER = Observer(version="0.1.0", hostname="gw1", boot_id="b" * 32)
TRACE = "0123456789abcdef0123456789abcdef"
AT_NS = 1_700_000_000_000_000_000  # November 2023
NEXT_MONTH_NS = 1_701_388_800_000_000_000  # 2023-12-01T00:00:00Z
KEY = IdentityKey("2023-11", b"k" * 32)
CLOSED = StreamClosed(sent_by=Side.CLIENT)
VALIDATOR = jsonschema.Draft202012Validator
CHECKER = VALIDATOR(event_schema(), format_checker=VALIDATOR.FORMAT_CHECKER)


def sample(event_type, **changes):
    return attrs.evolve(next(event for event in FULL if isinstance(event, event_type)), **changes)


def cover(mode="pseudonym", **options):
    return Identities(mode, KEY, **options)


def records(events, mode="pseudonym", at_ns=AT_NS):
    """Return the document of each event, made by one session's recorder or the proxy's."""
    identities = cover(mode)
    session = SessionRecorder(trace_id=TRACE, observer=OBSERVER, identities=identities)
    proxy = ProxyRecorder(observer=OBSERVER, identities=identities)
    recorders = [proxy if SHAPES[type(event)].scope is Scope.PROXY else session for event in events]
    return [recorder.record(event, at_ns).document for recorder, event in zip(recorders, events, strict=True)]


def last(*events, mode="pseudonym"):
    return records(events, mode)[-1]


def test_a_user_has_one_pseudonym_wherever_he_shows_up():
    opened = sample(StreamOpened, from_="Romeo@Example.org", to="example.org")
    document = last(opened, sample(SaslStarted, authcid="ROMEO", authzid="romeo@example.org"), sample(ResourceBound))
    local = KEY.digest("local", "romeo")[:12]
    resource = KEY.digest("resource", "orchard")[:12]
    assert document["user"] == {
        "name": f"u-{local}",
        "domain": "example.org",
        "hash": KEY.digest("user", "romeo@example.org")[:32],
    }
    assert document["xmpp"]["jid"] == f"u-{local}@example.org/r-{resource}"
    assert document["xmpp"]["bind"]["resource_requested"] == f"r-{resource}"
    assert document["related"]["user"] == [f"u-{local}"]
    assert document["xproxy"]["identities"] == {"mode": "pseudonym", "key_id": KEY.key_id}
    claimed = last(opened, sample(SaslStarted, authcid="ROMEO", authzid="romeo@example.org"))
    assert claimed["xmpp"]["sasl"]["authcid"] == f"u-{local}"
    assert claimed["xmpp"]["sasl"]["authzid"] == f"u-{local}@example.org"


def test_a_claim_without_a_domain_is_no_domain():
    document = last(sample(SaslStarted, authcid="romeo", authzid=None))
    assert document["xmpp"]["jid"] == document["user"]["name"] == f"u-{KEY.digest('local', 'romeo')[:12]}"
    assert "hash" not in document["user"]


def test_what_is_no_address_is_hashed_whole():
    document = last(sample(StreamOpened, from_="romeo @@montague@example.org", to="example.org"))
    assert document["xmpp"]["stream"]["from"] == f"x-{KEY.digest('invalid', 'romeo @@montague@example.org')[:16]}"
    assert b"montague" not in orjson.dumps(document)


@pytest.mark.parametrize(
    ("ip", "cut"),
    [
        ("192.0.2.77", "192.0.2.0"),
        ("2001:db8:1:2::77", "2001:db8:1::"),
        ("::ffff:192.0.2.77", "192.0.2.0"),
        ("fe80::1%eth0", "fe80::"),
    ],
)
def test_addresses_are_cut(ip, cut):
    document = last(ConnectionAccepted(client=Endpoint(ip, 40122), listener=Endpoint(ip, 5222)))
    assert document["source"]["ip"] == document["client"]["ip"] == document["xproxy"]["listener"]["ip"] == cut
    assert document["source"]["port"] == 40122
    assert document["related"]["ip"] == [cut]
    assert ip.encode() not in orjson.dumps(document)


@pytest.mark.parametrize(
    ("target", "pseudonym", "omitted"),
    [
        ("xmpp2.example.org:5222", "xmpp2.example.org:5222", "xmpp2.example.org:5222"),
        ("192.0.2.77:5222", "192.0.2.0:5222", None),
        ("[2001:db8::77]:5222", "[2001:db8::]:5222", None),
        ("[2001:db8::77]", "[2001:db8::]", None),
        ("2001:db8::77", "2001:db8::", None),
    ],
)
def test_hosts_keep_their_names(target, pseudonym, omitted):
    facts = {"xmpp.redirect.target": target}
    assert cover().apply(facts) == {"xmpp.redirect.target": pseudonym}
    assert cover("omit").apply(facts) == {"xmpp.redirect.target": omitted}


def test_a_host_that_is_a_user_is_none():
    document = last(sample(StreamOpened, to="romeo@example.org/x", from_=None))
    assert "romeo" not in str(document)
    assert "example.org" not in str(last(sample(StreamOpened, to="romeo@example.org/x", from_=None), mode="omit"))


def test_texts_that_may_quote_an_address_are_left_out_and_their_length_stays():
    for mode in ("pseudonym", "omit"):
        document = last(sample(StanzaError, text="romeo@example.org is unknown", text_bytes=28), mode=mode)
        assert "message" not in document["error"]
        assert document["xmpp"]["error"]["text_bytes"] == 28


def test_a_skeleton_names_no_domain_when_identities_are_left_out():
    error = sample(StanzaError, skeleton="<iq type=error><error type=cancel by=example.org/></iq>")
    assert last(error)["xmpp"]["stanza"]["skeleton"] == error.skeleton
    assert last(error, mode="omit")["xmpp"]["stanza"]["skeleton"] == "<iq type=error><error type=cancel by={11}/></iq>"


def test_the_proxy_names_itself_with_pseudonyms_and_not_when_addresses_are_left_out():
    started, refused = sample(ProxyStarted), sample(ConnectionRefused)
    document = last(started)
    assert document["xproxy"]["listeners"] == ["198.51.100.1:5222", "[::1]:5223"]
    assert last(refused)["source"]["ip"] == "192.0.2.0"
    document = last(started, mode="omit")
    assert "listeners" not in document["xproxy"]
    assert document["xproxy"]["identities"] == {"mode": "omit"}
    assert "ip" not in last(refused, mode="omit")["source"]


def test_every_month_has_a_key_of_its_own_within_a_session_too():
    kept = []
    identities = Identities("pseudonym", KEY, on_new_key=kept.append)
    one, other = (SessionRecorder(trace_id=TRACE, observer=OBSERVER, identities=identities) for _ in range(2))
    for recorder in (one, other):
        recorder.record(sample(ResourceBound), NEXT_MONTH_NS - 1)
    before, at_once = one.record(CLOSED, NEXT_MONTH_NS - 1).document, one.record(CLOSED, NEXT_MONTH_NS).document
    assert before["xproxy"]["identities"]["key_id"].startswith("2023-11-")
    assert at_once["xproxy"]["identities"]["key_id"].startswith("2023-12-")
    assert before["user"]["name"] != at_once["user"]["name"]
    assert before["user"]["hash"] not in str(at_once)
    assert other.record(CLOSED, NEXT_MONTH_NS + 1).document["user"] == at_once["user"]
    # A clock that goes back brings no old key back.
    assert one.record(CLOSED, AT_NS).document["user"] == at_once["user"]
    assert kept == [KEY.at(NEXT_MONTH_NS)]


def test_the_key_goes_forward_and_never_back():
    later = KEY.at(NEXT_MONTH_NS)
    assert later.month == "2023-12"
    assert KEY.at(AT_NS) is KEY
    assert later.at(AT_NS) is later
    january = 1_704_067_200_000_000_000
    assert KEY.at(january) == later.at(january)
    assert KEY.at(january).month == month_of(january) == "2024-01"
    assert len({KEY.secret, later.secret, KEY.at(january).secret}) == 3
    assert len({KEY.key_id[8:], later.key_id[8:]}) == 2


def test_the_file_of_the_key():
    assert IdentityKey.from_bytes(KEY.to_bytes()) == KEY
    assert IdentityKey.new(AT_NS, lambda count: b"r" * count) == IdentityKey("2023-11", b"r" * 32)
    assert KEY.secret.hex() not in repr(KEY)
    for data in (b"", KEY.to_bytes()[:-1], KEY.to_bytes() * 2, b"2023-13 " + KEY.to_bytes()[8:], b"\xff" * 73):
        with pytest.raises(ValueError, match="64 hexadecimal") as caught:
            IdentityKey.from_bytes(data)
        assert "6b6b" not in str(caught.value)


def test_in_clear_nothing_is_said_of_it():
    recorder = SessionRecorder(trace_id=TRACE, observer=OBSERVER)
    document = recorder.record(sample(ResourceBound), AT_NS).document
    assert "identities" not in document.get("xproxy", {})
    assert "hash" not in document["user"]


@pytest.mark.parametrize("mode", ["pseudonym", "omit"])
@pytest.mark.parametrize("event", SAMPLES.values(), ids=SAMPLES.keys())
def test_every_record_is_valid_in_every_mode(event, mode):
    document = orjson.loads(orjson.dumps(last(event, mode=mode)))
    assert [f"{error.json_path}: {error.message}" for error in CHECKER.iter_errors(document)] == []


def test_what_may_be_missing_may_only_be_missing_where_it_is_left_out():
    document = copy.deepcopy(orjson.loads(orjson.dumps(last(sample(ConnectionAccepted), mode="omit"))))
    assert list(CHECKER.iter_errors(document)) == []
    document["xproxy"]["identities"]["mode"] = "pseudonym"
    assert list(CHECKER.iter_errors(document))


def test_what_is_known_step_by_step_is_what_is_known_at_once():
    recorder = SessionRecorder(trace_id=TRACE, observer=OBSERVER, identities=cover())
    for event in FULL:
        stepwise = recorder.record(event, AT_NS)
        recorder._template = None
        anew = recorder.record(event, AT_NS).document
        anew["event"] = stepwise.document["event"]
        assert stepwise.document == anew


# The canary: every text of every event is somebody.

locals_ = st.text(alphabet="QXZqxz", min_size=7, max_size=12)
resources = st.text(alphabet="WKVwkv", min_size=7, max_size=12)
domains = st.sampled_from(["hidden-one.example", "hidden-two.example"])
ips = st.one_of(
    st.integers(200, 249).map(lambda last_octet: f"203.0.113.{last_octet}"),
    st.integers(0x1000, 0xFFFF).map(lambda part: f"2001:db8:aa:bb::{part:x}"),
)
# Names of our own, of the protocol, or of a program: no place for a user's.
_OUR_WORDS = """
    kind profile mechanism reason prediction policy looks_like version cipher alpn ja4 verify code condition type
    limit how gs2_flag channel_binding encoding starttls answer payload payloads features mechanisms
    channel_bindings element application_condition application_conditions skeleton software inline tasks
    token_requested previous missing expected signed purpose fields expires id_hash fingerprint confidence
    direction verdict what upstream_verify errno alert sha256 serial_number not_before not_after end_point_hash
    previous_sha256 lang content_namespace cause status_codes user_agent_hash last_element issuer
    proxy_protocol stream origin vkey previous_vkey segment note ops_note torn_segments counts error stage refusal
    on_client_reject directory path actions net
    applied kept needs_restart
"""
_OURS = frozenset(_OUR_WORDS.split())


class People:
    """Who is in the events of one run."""

    def __init__(self, local, domain, resource, ip):
        self.local, self.domain, self.resource, self.ip = local, domain, resource, ip
        self.jid = f"{local}@{domain}/{resource}"

    def fill(self, facts):
        """Return ``facts`` with an identity in every text that could hold one."""
        changes = {}
        for name, hint in typing.get_type_hints(type(facts)).items():
            value = getattr(facts, name)
            if typing.get_origin(hint) is typing.ClassVar or name in _OURS:
                continue
            if name == "certificate" and isinstance(value, str):  # which one the proxy shows
                continue
            if isinstance(value, Endpoint):
                changes[name] = Endpoint(self.ip, value.port)
            elif isinstance(value, Jid):
                changes[name] = Jid.from_text(self.jid)
            elif isinstance(value, str):
                changes[name] = self.text(name)
            elif isinstance(value, tuple) and value:
                endpoints = isinstance(value[0], Endpoint)
                changes[name] = (Endpoint(self.ip, 5222),) if endpoints else (self.ip, self.jid)
            elif attrs.has(type(value)):
                changes[name] = self.fill(value)
        return attrs.evolve(facts, **changes)

    def text(self, name):
        match name:
            case "authcid":
                return self.local
            case "resource_requested":
                return self.resource
            case "host" | "upstream" | "target":
                return f"{self.ip}"
            case "text" | "detail" | "problem":
                return f"{self.jid} from {self.ip} is unknown"
            case _:
                return self.jid


people = st.builds(People, locals_, domains, resources, ips)


@pytest.mark.slow
@given(people, st.data())
def test_canary_no_identity_survives(who, data):
    events = [who.fill(event) for event in FULL]
    events += data.draw(st.permutations(events))
    assert who.jid.encode() in b"".join(
        SessionRecorder(trace_id=TRACE, observer=OBSERVER).record(event, AT_NS).to_json() for event in events
    )
    pseudonyms = b"".join(orjson.dumps(document) for document in records(events)).lower()
    omitted = b"".join(orjson.dumps(document) for document in records(events, "omit")).lower()
    for text in (who.local, who.resource):
        assert text.lower().encode() not in pseudonyms
        assert text.lower().encode() not in omitted
    assert who.domain.encode() not in omitted
    assert who.ip.encode() not in omitted
    own = ("proxy-started",)  # the proxy's own listeners are nobody's
    strict = b"".join(orjson.dumps(document) for document in records([e for e in events if e.action not in own]))
    assert who.ip.encode() not in strict


def test_every_field_that_holds_an_address_says_so():
    """A new field for a JID or an address must not be forgotten."""
    suspects = [
        field.name
        for field in FIELDS.values()
        if field.identity is None
        and (field.type.value == "ip" or field.max_bytes == 3_071 or field.key in {"address", "domain", "jid", "name"})
    ]
    # Names of programs and limits; and what write_facts derives from the rest.
    assert set(suspects) == {"service.name", "service.node.name", "related.ip", "xproxy.limit.name"}
    assert {field.identity for field in FIELDS.values()} - {None} == set(Identity)
