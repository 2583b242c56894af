from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from xproxy.replay.junit import render_junit
from xproxy.replay.report import Case, Failure, FailureKind, Report

FAILURE = Failure(kind=FailureKind.MISSING, message="no <presence/>", detail="- <presence/>\n+ ", line=17)


def test_the_shape_is_that_of_xunit2() -> None:
    case = Case(
        name="session 1 (alice)",
        file="cassettes/a.xmpp.xml",
        line=3,
        failures=(FAILURE,),
        seconds=0.25,
        properties=(("xproxy.matched", "7"),),
    )
    skipped = Case(name="session 2", file="b", skipped="why")
    report = Report(
        name="xproxy replay", cases=(case, skipped), started="2026-01-01T00:00:00Z", seconds=1.5, host="box"
    )
    root = etree.fromstring(render_junit(report))
    assert root.tag == "testsuites"
    suite = root[0]
    assert dict(suite.attrib) == {
        "name": "xproxy replay",
        "tests": "2",
        "failures": "1",
        "errors": "0",
        "skipped": "1",
        "time": "1.500",
        "timestamp": "2026-01-01T00:00:00Z",
        "hostname": "box",
    }
    assert dict(suite[0].attrib) == {
        "classname": "cassettes/a.xmpp.xml",
        "name": "session 1 (alice)",
        "file": "cassettes/a.xmpp.xml",
        "line": "3",
        "time": "0.250",
    }
    assert [child.tag for child in suite[0]] == ["properties", "failure"]
    assert dict(suite[0][0][0].attrib) == {"name": "xproxy.matched", "value": "7"}
    failure = suite[0][1]
    assert (failure.get("type"), failure.get("message")) == ("MissingStanza", "no <presence/>")
    assert failure.text == "cassettes/a.xmpp.xml:17: MissingStanza: no <presence/>\n- <presence/>\n+ "
    assert suite[1][0].tag == "skipped"


@given(st.text(st.characters()))
def test_whatever_a_peer_writes_the_file_can_be_read(text: str) -> None:
    failure = Failure(kind=FailureKind.MISMATCH, message=text, detail=text)
    case = Case(name=text, file=text, failures=(failure,), properties=((text, text),))
    root = etree.fromstring(render_junit(Report(name=text, cases=(case,), host=text)))
    assert root.find(".//failure") is not None


def test_control_characters_are_replaced_not_dropped() -> None:
    failure = Failure(kind=FailureKind.MISMATCH, message="m", detail="a\x00b\x1b\ufffe\ud800")
    text = etree.fromstring(render_junit(Report(name="r", cases=(Case(name="c", file="f", failures=(failure,)),))))
    assert "".join(text.itertext()).strip().endswith("a\ufffdb\ufffd\ufffd\ufffd")


def test_what_was_let_pass_is_written_behind_the_failure() -> None:
    case = Case(name="a", file="f", failures=(FAILURE,), notes=("it left\x1b otherwise", "and came by TLS"))
    (element,) = etree.fromstring(render_junit(Report(name="r", cases=(case,)))).iter("testcase")
    assert [child.tag for child in element] == ["failure", "system-out"]
    assert element[1].text == "let pass: it left\ufffd otherwise\nlet pass: and came by TLS"
