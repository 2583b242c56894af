"""SASL2 and what rides on it. Vectors: the examples of XEP-0388, XEP-0386, XEP-0484 and XEP-0198 section 9."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from xproxy.jid import Jid
from xproxy.xmpp import ns, sasl2
from xproxy.xmpp.sasl import decoder_for
from xproxy.xmpp.sasl2 import Continue, FastRequest, Offer, Request, ResumeRequest, Success, TaskData, UserAgent
from xproxy.xmpp.stanza import Conditions, keyed_hash

KEY = b"key"
SECRET = "QXZ-never-told"


def parse(text: str) -> etree._Element:
    return etree.fromstring(
        f"<stream:stream xmlns='{ns.CLIENT}' xmlns:stream='{ns.STREAMS}' xmlns:sm='{ns.SM3}'>{text}</stream:stream>"
    )[0]


def request(**changes: object) -> Request:
    facts: dict[str, object] = {
        "mechanism": "SCRAM-SHA-1", "upgrades": (), "user_agent": None, "inline": (), "bind": False, "bind_tag": None,
        "bind_features": (), "resume": None, "fast": None, "token_requested": None,
    }  # fmt: skip
    return Request(**(facts | changes))  # type: ignore[arg-type]


def success(**changes: object) -> Success:
    facts: dict[str, object] = {
        "identifier": None, "jid": None, "inline": (), "bound": False, "resumed_hash": None, "resumed": False,
        "resume_failed": None, "server_handled": None, "token_issued": False, "token_expires": None,
    }  # fmt: skip
    return Success(**(facts | changes))  # type: ignore[arg-type]


def read(text: str) -> Request:
    return sasl2.read_request(parse(text), key=KEY)


def read_success(text: str) -> Success:
    return sasl2.read_success(parse(text), key=KEY)


def test_an_offer_with_all_that_may_ride_along() -> None:
    offer = sasl2.read_offer(
        parse(
            """<authentication xmlns='urn:xmpp:sasl:2'>
                 <mechanism>SCRAM-SHA-1</mechanism>
                 <mechanism>SCRAM-SHA-1-PLUS</mechanism><!-- c -->
                 <inline>
                   <bind xmlns='urn:xmpp:bind:0'>
                     <inline>
                       <feature var="urn:xmpp:carbons:2" />
                       <feature var="urn:xmpp:csi:0" />
                       <feature var="urn:xmpp:sm:3" />
                       <feature var="juliet@capulet.example" />
                     </inline>
                   </bind>
                   <sm xmlns='urn:xmpp:sm:3'/>
                   <fast xmlns='urn:xmpp:fast:0' tls-0rtt='true'>
                     <mechanism>HT-SHA-256-ENDP</mechanism>
                     <mechanism>HT-SHA-256-NONE</mechanism>
                   </fast>
                 </inline>
                 <upgrade xmlns='urn:xmpp:sasl:upgrade:0'>UPGR-SCRAM-SHA-256</upgrade>
               </authentication>"""
        )
    )
    assert offer == Offer(
        mechanisms=("SCRAM-SHA-1", "SCRAM-SHA-1-PLUS"),
        inline=("{urn:xmpp:bind:0}bind", "{urn:xmpp:sm:3}sm", "{urn:xmpp:fast:0}fast"),
        bind_features=("urn:xmpp:carbons:2", "urn:xmpp:csi:0", "urn:xmpp:sm:3", "other"),
        fast_mechanisms=("HT-SHA-256-ENDP", "HT-SHA-256-NONE"),
        fast_early_data=True,
        upgrades=("UPGR-SCRAM-SHA-256",),
    )
    assert offer.bind


def test_an_offer_as_the_earlier_version_had_it() -> None:
    offer = sasl2.read_offer(
        parse(
            "<authentication xmlns='urn:xmpp:sasl:2'><mechanism>SCRAM-SHA-1</mechanism><mechanism/>"
            "<upgrade>SCRAM-SHA-256</upgrade><inline><bind xmlns='urn:xmpp:bind2:1'/></inline></authentication>"
        )
    )
    assert offer.mechanisms == ("SCRAM-SHA-1",)
    assert offer.upgrades == ("SCRAM-SHA-256",)
    assert offer.bind
    assert (offer.fast_mechanisms, offer.fast_early_data, offer.bind_features) == ((), False, ())


def test_a_bare_request() -> None:
    assert read("<authenticate xmlns='urn:xmpp:sasl:2' mechanism='SCRAM-SHA-1'/>") == request()
    assert read("<authenticate xmlns='urn:xmpp:sasl:2'/>") == request(mechanism="")


def test_a_request_with_bind_and_a_wish_for_a_token() -> None:
    got = read(
        """<authenticate xmlns='urn:xmpp:sasl:2' mechanism='SCRAM-SHA-1-PLUS'>
             <initial-response>cD10bHMtZXhwb3J0ZXIsLG49dXNlcixyPTEyQw==</initial-response>
             <user-agent id='d4565fa7-4d72-4749-b3d3-740edbf87770'>
               <software>AwesomeXMPP</software>
               <device>Kiva's Phone</device>
             </user-agent>
             <bind xmlns='urn:xmpp:bind:0'>
               <tag>AwesomeXMPP</tag>
               <enable xmlns='urn:xmpp:carbons:2'/>
               <enable xmlns='urn:xmpp:sm:3'/>
               <inactive xmlns='urn:xmpp:csi:0'/>
             </bind>
             <request-token xmlns='urn:xmpp:fast:0' mechanism='HT-SHA-256-ENDP'/>
           </authenticate>"""
    )
    assert got == request(
        mechanism="SCRAM-SHA-1-PLUS",
        user_agent=UserAgent(
            id_hash=keyed_hash(KEY, "user-agent", "d4565fa7-4d72-4749-b3d3-740edbf87770"),
            software="AwesomeXMPP",
            has_device=True,
        ),
        inline=("{urn:xmpp:bind:0}bind", "{urn:xmpp:fast:0}request-token"),
        bind=True,
        bind_tag="AwesomeXMPP",
        bind_features=("{urn:xmpp:carbons:2}enable", "{urn:xmpp:sm:3}enable", "{urn:xmpp:csi:0}inactive"),
        token_requested="HT-SHA-256-ENDP",
    )
    assert "Kiva" not in repr(got)
    assert "d4565fa7" not in repr(got)


def test_a_request_by_token_that_gives_the_token_back_and_resumes() -> None:
    got = read(
        """<authenticate xmlns='urn:xmpp:sasl:2' mechanism='HT-SHA-256-ENDP'>
             <initial-response>dXNlcgBzZWNyZXQ=</initial-response>
             <fast xmlns='urn:xmpp:fast:0' count='123' invalidate='true'/>
             <resume xmlns='urn:xmpp:sm:3' h='345' previd='some-long-sm-id'/>
           </authenticate>"""
    )
    assert got.fast == FastRequest(count=123, invalidate=True)
    assert got.resume == ResumeRequest(id_hash=keyed_hash(KEY, "sm", "some-long-sm-id"), handled=345)
    assert "some-long" not in repr(got)


def test_an_upgrade_is_asked_for_in_either_spelling() -> None:
    old = read("<authenticate xmlns='urn:xmpp:sasl:2' mechanism='SCRAM-SHA-1' upgrade='SCRAM-SHA-256'/>")
    new = read(
        "<authenticate xmlns='urn:xmpp:sasl:2' mechanism='SCRAM-SHA-1'>"
        "<upgrade xmlns='urn:xmpp:sasl:upgrade:0'>UPGR-SCRAM-SHA-256</upgrade></authenticate>"
    )
    assert (old.upgrades, new.upgrades) == (("SCRAM-SHA-256",), ("UPGR-SCRAM-SHA-256",))


@pytest.mark.parametrize("name", ["authorization-identifier", "authorization-identity"])
def test_success_with_a_resource_and_a_token(name: str) -> None:
    got = read_success(
        f"""<success xmlns='urn:xmpp:sasl:2'>
              <{name}>user@example.com/AwesomeXMPP.4232f4d4</{name}>
              <bound xmlns='urn:xmpp:bind:0'>
                <metadata xmlns='urn:xmpp:mam:2'><start id='YWxwaGEg' timestamp='2008-08-22T21:09:04Z' /></metadata>
              </bound>
              <token xmlns='urn:xmpp:fast:0' expiry='2020-03-12T14:36:15Z' token='{SECRET}' />
            </success>"""
    )
    assert got == success(
        identifier="user@example.com/AwesomeXMPP.4232f4d4",
        jid=Jid("user", "example.com", "AwesomeXMPP.4232f4d4"),
        inline=("{urn:xmpp:bind:0}bound", "{urn:xmpp:fast:0}token"),
        bound=True,
        token_issued=True,
        token_expires="2020-03-12T14:36:15Z",
    )
    assert SECRET not in repr(got)


def test_success_with_a_resumption() -> None:
    got = read_success(
        "<success xmlns='urn:xmpp:sasl:2'><additional-data>SGFk</additional-data>"
        "<authorization-identifier> juliet@montague.example </authorization-identifier>"
        "<sm:resumed xmlns='urn:xmpp:sm:3' h='345' previd='124'/></success>"
    )
    assert got == success(
        identifier="juliet@montague.example",
        jid=Jid("juliet", "montague.example"),
        inline=("{urn:xmpp:sm:3}resumed",),
        resumed=True,
        resumed_hash=keyed_hash(KEY, "sm", "124"),
        server_handled=345,
    )


def test_success_with_a_resumption_refused_and_a_resource_instead() -> None:
    element = parse(
        "<success xmlns='urn:xmpp:sasl:2'><authorization-identifier>a@b/c</authorization-identifier>"
        "<failed xmlns='urn:xmpp:sm:3' h='7'><item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></failed>"
        "<bound xmlns='urn:xmpp:bind:0'><enabled xmlns='urn:xmpp:sm:3' id='x' resume='1'/></bound></success>"
    )
    got = sasl2.read_success(element, key=KEY)
    assert (got.resumed, got.resume_failed, got.server_handled, got.bound) == (False, "item-not-found", 7, True)
    assert [child.tag for child in sasl2.stream_management(element)] == [
        "{urn:xmpp:sm:3}failed",
        "{urn:xmpp:sm:3}enabled",
    ]


@pytest.mark.parametrize("expiry", ["", "soon", "2020-03-12", SECRET, "2020-03-12T14:36:15Z " + SECRET])
def test_an_expiry_that_is_no_date_is_not_told(expiry: str) -> None:
    got = read_success(
        f"<success xmlns='urn:xmpp:sasl:2'><token xmlns='urn:xmpp:fast:0' expiry='{expiry}' token='x'/></success>"
    )
    assert got == success(inline=("{urn:xmpp:fast:0}token",), token_issued=True)


def test_an_identifier_that_is_no_address_stays_text() -> None:
    got = read_success(
        "<success xmlns='urn:xmpp:sasl:2'><authorization-identifier>a@@b</authorization-identifier></success>"
    )
    assert (got.identifier, got.jid) == ("a@@b", None)


def test_requests_within_bind_are_stream_management_too() -> None:
    element = parse(
        "<authenticate xmlns='urn:xmpp:sasl:2' mechanism='X'><bind xmlns='urn:xmpp:bind:0'><tag>t</tag>"
        "<enable xmlns='urn:xmpp:sm:3'/></bind><resume xmlns='urn:xmpp:sm:3' previd='x' h='0'/></authenticate>"
    )
    assert [child.tag for child in sasl2.stream_management(element)] == [
        "{urn:xmpp:sm:3}resume",
        "{urn:xmpp:sm:3}enable",
    ]


def test_failure() -> None:
    element = parse(
        """<failure xmlns='urn:xmpp:sasl:2'>
             <aborted xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>
             <optional-application-specific xmlns='urn:something:else'/>
             <text>This is a terrible example.</text>
           </failure>"""
    )
    want = Conditions(
        condition="aborted",
        condition_known=True,
        application_conditions=("{urn:something:else}optional-application-specific",),
        text="This is a terrible example.",
        text_bytes=27,
    )
    assert sasl2.read_failure(element, server_text=True) == want
    assert sasl2.read_failure(element, server_text=False).text is None
    other = parse(
        f"<failure xmlns='{ns.SASL2}'><not-authorized xmlns='{ns.SASL}'/><text xmlns='{ns.SASL}'>No</text></failure>"
    )
    assert sasl2.read_failure(other, server_text=True).text == "No"
    unknown = sasl2.read_failure(
        parse(f"<failure xmlns='urn:xmpp:sasl:2'><new-one xmlns='{ns.SASL}'/></failure>"), server_text=True
    )
    assert (unknown.condition, unknown.condition_known) == ("new-one", False)
    assert sasl2.read_failure(parse("<failure xmlns='urn:xmpp:sasl:2'/>"), server_text=True).condition == ""


def test_tasks() -> None:
    element = parse(
        f"""<continue xmlns='urn:xmpp:sasl:2'>
             <additional-data>{SECRET}</additional-data>
             <tasks><task>HOTP-EXAMPLE</task><task>TOTP-EXAMPLE</task></tasks>
             <text>This account requires 2FA</text>
           </continue>"""
    )
    want = Continue(tasks=("HOTP-EXAMPLE", "TOTP-EXAMPLE"), text="This account requires 2FA", text_bytes=25)
    assert sasl2.read_continue(element, server_text=True) == want
    assert sasl2.read_continue(element, server_text=False).text is None
    assert sasl2.read_continue(parse("<continue xmlns='urn:xmpp:sasl:2'/>"), server_text=True).tasks == ()
    assert sasl2.read_next(parse("<next xmlns='urn:xmpp:sasl:2' task='TOTP-EXAMPLE'/>")) == "TOTP-EXAMPLE"
    assert sasl2.read_next(parse("<next xmlns='urn:xmpp:sasl:2'/>")) == ""
    data = parse(
        "<task-data xmlns='urn:xmpp:sasl:2'>"
        "<salt xmlns='urn:xmpp:scram-upgrade:0' iterations='4096'>QV9T</salt></task-data>"
    )
    assert sasl2.read_task_data(data) == TaskData(children=("{urn:xmpp:scram-upgrade:0}salt",), octets=4)


@pytest.mark.parametrize(
    ("within", "want"),
    [
        ("", (None, None)),
        ("<initial-response/>", (b"", "strict")),
        ("<initial-response></initial-response>", (b"", "strict")),
        ("<initial-response>AGEAYg==</initial-response>", (b"\0a\0b", "strict")),
        ("<initial-response>AGEA<!-- x -->Yg==</initial-response>", (b"\0a\0b", "strict")),
        ("<initial-response>\n  AGEAYg==\n</initial-response>", (b"\0a\0b", "whitespace")),
        ("<initial-response>=</initial-response>", (None, "invalid")),
        ("<initial-response>!</initial-response>", (None, "invalid")),
        ("<initial-response xmlns='urn:x'>AGEAYg==</initial-response>", (None, None)),
    ],
)
def test_the_initial_response_is_an_element(within: str, want: tuple[bytes | None, str | None]) -> None:
    element = parse(f"<authenticate xmlns='urn:xmpp:sasl:2' mechanism='PLAIN'>{within}</authenticate>")
    assert sasl2.initial_response(element) == want


def test_a_dialogue_goes_through_the_decoder() -> None:
    """XEP-0388 sections 2.4 to 2.6, with its line breaks."""
    decoder = decoder_for("SCRAM-SHA-1-PLUS")
    first, _ = sasl2.initial_response(
        parse(
            "<authenticate xmlns='urn:xmpp:sasl:2' mechanism='SCRAM-SHA-1-PLUS'><initial-response>cD10bHMtZXhwb3J0ZXIs"
            "LG49dXNlcixyPTEyQzRDRDVDLUUzOEUtNEE5OC04RjZELTE1QzM4RjUxQ0NDNg==</initial-response></authenticate>"
        )
    )
    assert first is not None
    identity = decoder.response(first, 0)
    assert (identity.authcid, identity.channel_binding, identity.problem) == ("user", "tls-exporter", None)
    challenge, encoding = sasl2.payload_of(
        parse(
            """<challenge xmlns='urn:xmpp:sasl:2'>
                 cj0xMkM0Q0Q1Qy1FMzhFLTRBOTgtOEY2RC0xNUMzOEY1MUNDQzZhMDkxMTdhNi1hYzUwLTRmMmYtOTNmMS05Mzc5OWMyYmRkZjYscz1RU1hDUitRNnNlazhiZjkyLGk9NDA5Ng==
               </challenge>"""
        )
    )
    assert encoding == "whitespace"
    assert challenge is not None
    assert decoder.challenge(challenge, 1).iterations == 4096
    final, _ = sasl2.additional_data(
        parse("<success xmlns='urn:xmpp:sasl:2'><additional-data>dj1tc1ZI</additional-data></success>")
    )
    assert final == b"v=msVH"
    assert sasl2.additional_data(parse("<success xmlns='urn:xmpp:sasl:2'/>")) == (None, None)


names = st.sampled_from(
    ["bind", "bound", "resume", "resumed", "failed", "token", "fast", "tag", "inline", "mechanism", "user-agent",
     "software", "initial-response", "additional-data", "tasks", "task", "text", "authorization-identifier", "x"]
)  # fmt: skip
namespaces = st.sampled_from([ns.SASL2, ns.SASL, ns.BIND2, ns.BIND2_OLD, ns.FAST, ns.SM3, "urn:x"])
elements = st.recursive(
    st.tuples(names, namespaces).map(lambda pair: f"<{pair[0]} xmlns='{pair[1]}' token='{SECRET}' previd='{SECRET}'/>"),
    lambda inner: st.tuples(names, namespaces, st.lists(inner, max_size=3)).map(
        lambda parts: f"<{parts[0]} xmlns='{parts[1]}' h='x' id='{SECRET}' expiry='{SECRET}'><!-- c -->"
        + "".join(parts[2]) + f"</{parts[0]}>"
    ),
    max_leaves=8,
)  # fmt: skip


@given(st.lists(elements, max_size=5))
def test_whatever_stands_there_is_read_and_no_secret_told(children: list[str]) -> None:
    element = parse(f"<any xmlns='urn:xmpp:sasl:2'>{''.join(children)}</any>")
    told = [
        sasl2.read_offer(element), sasl2.read_request(element, key=KEY), sasl2.read_success(element, key=KEY),
        sasl2.read_failure(element, server_text=True), sasl2.read_continue(element, server_text=True),
        sasl2.read_next(element), sasl2.read_task_data(element),
    ]  # fmt: skip
    assert SECRET not in repr(told)
