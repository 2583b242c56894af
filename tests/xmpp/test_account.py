"""Requests about the account. Vectors: the examples of XEP-0077, XEP-0191, XEP-0363, RFC 6121 section 2."""

import pytest
from lxml import etree

from xproxy.events import Side
from xproxy.events.account import (
    AccountRemoved,
    FastTokenIssued,
    PasswordChanged,
    RegistrationFailed,
    RegistrationSucceeded,
)
from xproxy.events.stanza import RequestFacts
from xproxy.xmpp import account, ns, sasl2
from xproxy.xmpp.account import PURPOSES, purpose_of, registration_ended, registration_fields, token_issued

SECRET = "QXZ-never-told"
REGISTER = f"<query xmlns='jabber:iq:register'><username>bill</username><password>{SECRET}</password></query>"


def parse(text: str) -> etree._Element:
    return etree.fromstring(f"<s xmlns='jabber:client'>{text}</s>")[0]


def request(purpose: str | None, **changes: object) -> RequestFacts:
    facts: dict[str, object] = {
        "sent_by": Side.CLIENT, "type": "set", "payload": "{jabber:iq:register}query", "age_ns": 7, "purpose": purpose,
        "fields": ("username", "password"),
    }  # fmt: skip
    return RequestFacts(**(facts | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("type_", "payload", "established", "purpose"),
    [
        ("get", "<query xmlns='jabber:iq:register'/>", False, "register-form"),
        ("set", REGISTER, False, "register"),
        ("set", REGISTER, True, "password-change"),
        ("set", "<query xmlns='jabber:iq:register'><remove/></query>", True, "account-remove"),
        ("set", "<query xmlns='jabber:iq:register'><username>u</username><email>e</email></query>", True, "register"),
        (
            "set",
            "<query xmlns='jabber:iq:register'><x xmlns='jabber:x:data'><field var='FORM_TYPE'>"
            "<value>jabber:iq:register:changepassword</value></field><field var='old_password'/></x></query>",
            True,
            "password-change",
        ),
        (
            "set",
            "<query xmlns='jabber:iq:register'><x xmlns='jabber:x:data'><field var='FORM_TYPE'>"
            "<value>jabber:iq:register:cancel</value></field></x></query>",
            True,
            "account-remove",
        ),
        (
            "set",
            "<query xmlns='jabber:iq:register'><x xmlns='jabber:x:data'><field var='FORM_TYPE'>"
            "<value>jabber:iq:register</value></field></x></query>",
            False,
            "register",
        ),
        ("set", "<query xmlns='jabber:iq:register'><x xmlns='jabber:x:data'/></query>", False, "register"),
        ("get", "<query xmlns='jabber:iq:roster'/>", True, "roster-get"),
        ("set", "<!-- c --><query xmlns='jabber:iq:roster'><item jid='a@b'/></query>", True, "roster-set"),
        ("set", "<block xmlns='urn:xmpp:blocking'><item jid='romeo@montague.net'/></block>", True, "block"),
        ("set", "<unblock xmlns='urn:xmpp:blocking'/>", True, "unblock"),
        ("get", "<blocklist xmlns='urn:xmpp:blocking'/>", True, "blocklist"),
        ("get", "<request xmlns='urn:xmpp:http:upload:0' filename='x.jpg' size='1'/>", True, "upload-slot"),
        ("set", "<session xmlns='urn:ietf:params:xml:ns:xmpp-session'/>", True, "session"),
        ("set", "<query xmlns='jabber:iq:auth'><username>u</username></query>", False, "legacy-auth"),
        ("result", "<query xmlns='jabber:iq:roster'/>", True, None),
        ("get", "<block xmlns='urn:xmpp:blocking'/>", True, None),
        ("get", "<query xmlns='urn:x'/>", True, None),
        ("get", "", True, None),
    ],
)
def test_what_a_request_is_for(type_: str, payload: str, established: bool, purpose: str | None) -> None:
    element = parse(f"<iq type='{type_}' id='1'>{payload}</iq>")
    assert purpose_of(element, established=established) == purpose
    assert purpose is None or purpose in PURPOSES


@pytest.mark.parametrize(
    ("payload", "fields"),
    [
        (REGISTER, ("username", "password")),
        ("<query xmlns='jabber:iq:register'><remove/></query>", ()),
        (
            "<query xmlns='jabber:iq:register'><x xmlns='jabber:x:data'><field var='FORM_TYPE'/><field var='username'/>"
            "<field var='romeo@montague.net'/><field/></x></query>",
            ("username", "other"),
        ),
        ("<query xmlns='jabber:iq:register'><secret-name/><email/><email/><x xmlns='u'/></query>", ("other", "email")),
        ("<query xmlns='jabber:iq:roster'/>", ()),
    ],
)
def test_only_names_that_are_known_are_told(payload: str, fields: tuple[str, ...]) -> None:
    assert registration_fields(parse(f"<iq type='set'>{payload}</iq>")) == fields


def test_results() -> None:
    result = parse("<iq type='result' id='reg2'/>")
    ended = [
        registration_ended(result, request(purpose), server_text=True)
        for purpose in ("register", "password-change", "account-remove", "roster-get", None)
    ]
    assert ended == [
        RegistrationSucceeded(fields=("username", "password"), duration_ns=7),
        PasswordChanged(duration_ns=7),
        AccountRemoved(duration_ns=7),
        None,
        None,
    ]
    assert registration_ended(result, None, server_text=True) is None
    assert registration_ended(result, request("register", sent_by=Side.SERVER), server_text=True) is None
    assert registration_ended(parse("<iq type='get'/>"), request("register"), server_text=True) is None


@pytest.mark.parametrize("purpose", ["register", "password-change", "account-remove"])
def test_an_error_that_echoes_the_password(purpose: str) -> None:
    """XEP-0077 example 6."""
    element = parse(
        f"<iq type='error' id='reg2'>{REGISTER}<error code='409' type='cancel'>"
        f"<conflict xmlns='{ns.STANZA_ERRORS}'/><text xmlns='{ns.STANZA_ERRORS}'>Taken.</text></error></iq>"
    )
    failed = registration_ended(element, request(purpose), server_text=True)
    assert failed == RegistrationFailed(
        purpose=purpose,
        fields=("username", "password"),
        type="cancel",
        condition="conflict",
        condition_known=True,
        code="409",
        application_conditions=(),
        text="Taken.",
        text_bytes=6,
        duration_ns=7,
    )
    assert SECRET not in repr(failed)


def test_the_text_of_a_gateway_is_not_the_servers() -> None:
    element = parse(
        "<iq type='error' id='reg2' from='gateway.elsewhere.example'><error type='modify'>"
        f"<not-acceptable xmlns='{ns.STANZA_ERRORS}'/><text xmlns='{ns.STANZA_ERRORS}'>No.</text></error></iq>"
    )
    failed = registration_ended(element, request("register"), server_text=True, account="bill@shakespeare.lit")
    assert isinstance(failed, RegistrationFailed)
    assert (failed.text, failed.text_bytes) == (None, 3)


def test_a_token_is_told_and_never_kept() -> None:
    def success(within: str) -> sasl2.Success:
        return sasl2.read_success(parse(f"<success xmlns='urn:xmpp:sasl:2'>{within}</success>"), key=b"k")

    asked = sasl2.read_request(
        parse(
            "<authenticate xmlns='urn:xmpp:sasl:2' mechanism='PLAIN'>"
            "<request-token xmlns='urn:xmpp:fast:0' mechanism='HT-SHA-256-NONE'/></authenticate>"
        ),
        key=b"k",
    )
    with_token = success(f"<token xmlns='urn:xmpp:fast:0' expiry='2026-12-12T14:36:15Z' token='{SECRET}'/>")
    issued = token_issued(with_token, asked)
    assert issued == FastTokenIssued(requested=True, mechanism="HT-SHA-256-NONE", expires="2026-12-12T14:36:15Z")
    assert token_issued(with_token, None) == FastTokenIssued(
        requested=False, mechanism=None, expires="2026-12-12T14:36:15Z"
    )
    assert token_issued(success(""), asked) is None


def test_the_list_of_fields_is_bounded() -> None:
    many = "".join(f"<field var='{name}'/>" for name in sorted(account.FIELD_NAMES))
    element = parse(f"<iq><query xmlns='jabber:iq:register'><x xmlns='jabber:x:data'>{many}</x></query></iq>")
    assert len(registration_fields(element)) == account.FIELDS_MAX
