import re

from hypothesis import given
from hypothesis import strategies as st

from xproxy.replay.github import ANNOTATIONS_MAX, annotations, shielded, step_summary
from xproxy.replay.report import Case, Failure, FailureKind, Report


def report_of(*messages: str, detail: str = "", name: str = "session 1") -> Report:
    failures = tuple(
        Failure(kind=FailureKind.UNEXPECTED, message=message, detail=detail, line=42) for message in messages
    )
    return Report(name="xproxy replay", cases=(Case(name=name, file="cassettes/a,b:c.xmpp.xml", failures=failures),))


def test_an_annotation_lands_on_the_line_of_the_cassette() -> None:
    assert annotations(report_of("100% of <presence/>\nis new")) == [
        "::error file=cassettes/a%2Cb%3Ac.xmpp.xml,line=42,title=Unexpected in session 1"
        "::100%25 of <presence/>%0Ais new"
    ]


def test_there_are_never_more_than_github_shows() -> None:
    commands = annotations(report_of(*map(str, range(50))))
    assert len(commands) == ANNOTATIONS_MAX
    assert commands[-1] == "::error::and 41 more failures; the step's log has all of them"
    assert len(annotations(report_of(*map(str, range(ANNOTATIONS_MAX))))) == ANNOTATIONS_MAX


@given(st.text(), st.text())
def test_no_text_makes_a_second_command(message: str, name: str) -> None:
    (command,) = annotations(report_of(message, name=name))
    assert "\n" not in command
    assert "\r" not in command
    head = command.removeprefix("::error ").partition("::")[0]
    assert re.fullmatch(r"file=[^,:]*,line=42,title=[^,:]*", head, re.DOTALL)


@given(st.text(), st.text())
def test_the_summary_holds_a_peers_text_as_text_only(message: str, detail: str) -> None:
    plain = step_summary(report_of("m", detail="d" if detail else ""))
    summary = step_summary(report_of(message, detail=detail))
    for markup in ("<img", "</pre>", "<script", "<a ", "]("):
        assert summary.count(markup) == plain.count(markup)
    rows = [line for line in summary.split("<pre>")[0].split("\n") if line.startswith("|")]
    assert len(rows) == 3
    assert rows[2].count("|") == 5


def test_stanzas_in_the_log_are_no_commands() -> None:
    text = shielded("<body>\n::set-output name=x::y\n##[error]z</body>", "t0ken")
    assert text.splitlines()[0] == "::stop-commands::t0ken"
    assert text.splitlines()[-1] == "::t0ken::"
