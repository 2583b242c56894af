import pytest

from xproxy.replay.report import (
    EXIT_AUTH,
    EXIT_DIFFERENT,
    EXIT_MATCH,
    EXIT_NOTHING,
    EXIT_TIMEOUT,
    EXIT_TLS,
    MESSAGE_CHARS_MAX,
    Case,
    Failure,
    FailureKind,
    Report,
    merged,
    one_line,
    to_json,
)


def failed(*kinds: FailureKind, **options: object) -> Case:
    failures = tuple(Failure(kind=kind, message=f"m of {kind.value}", detail="d") for kind in kinds)
    return Case(name="session 1", file="a.xmpp.xml", line=3, failures=failures, **options)  # type: ignore[arg-type]


PASSED = Case(name="session 2", file="a.xmpp.xml")
SKIPPED = Case(name="session 3", file="a.xmpp.xml", skipped="no such role")


@pytest.mark.parametrize(
    ("cases", "code"),
    [
        ((PASSED,), EXIT_MATCH),
        ((PASSED, SKIPPED), EXIT_MATCH),
        ((), EXIT_NOTHING),
        ((SKIPPED,), EXIT_NOTHING),
        ((PASSED, failed(FailureKind.MISSING)), EXIT_DIFFERENT),
        ((failed(FailureKind.STREAM),), EXIT_DIFFERENT),
        ((failed(FailureKind.GOLDEN),), EXIT_DIFFERENT),
        ((failed(FailureKind.AUTH),), EXIT_AUTH),
        ((failed(FailureKind.TLS),), EXIT_TLS),
        ((failed(FailureKind.TIMEOUT),), EXIT_TIMEOUT),
        ((failed(FailureKind.TLS), failed(FailureKind.AUTH)), EXIT_AUTH),
        ((failed(FailureKind.AUTH, FailureKind.UNEXPECTED),), EXIT_DIFFERENT),
        ((failed(FailureKind.TIMEOUT, FailureKind.MISMATCH),), EXIT_DIFFERENT),
    ],
)
def test_the_exit_code_follows_the_worst_failure(cases: tuple[Case, ...], code: int) -> None:
    assert Report(name="r", cases=cases).exit_code == code


def test_every_kind_of_failure_has_an_exit_code() -> None:
    for kind in FailureKind:
        assert Report(name="r", cases=(failed(kind),)).exit_code != EXIT_MATCH


def test_json_has_place_and_detail_of_every_failure() -> None:
    report = Report(name="r", cases=(failed(FailureKind.MISSING), PASSED, SKIPPED))
    document = to_json(report)
    assert [case["outcome"] for case in document["cases"]] == ["failed", "passed", "skipped"]
    assert document["cases"][0]["failures"] == [
        {"kind": "MissingStanza", "message": "m of MissingStanza", "detail": "d", "file": "a.xmpp.xml", "line": 3}
    ]
    assert document["exit_code"] == EXIT_DIFFERENT


def test_a_message_is_one_printable_line() -> None:
    assert one_line("a\n\tb\x1b[31m  c\u202e") == "a b [31m c "
    assert len(one_line("x" * 1_000)) == MESSAGE_CHARS_MAX


def test_scrubbing_reaches_every_text() -> None:
    case = Case(
        name="s3cret",
        file="f",
        skipped="s3cret",
        properties=(("client", "s3cret"),),
        failures=(Failure(kind=FailureKind.AUTH, message="s3cret", detail="s3cret"),),
    )
    scrubbed = Report(name="r", cases=(case,)).scrubbed(lambda text: text.replace("s3cret", "***"))
    assert "s3cret" not in repr(scrubbed)


def test_reports_of_several_files_become_one() -> None:
    one = Report(name="a", cases=(PASSED,), started="2026-01-02T00:00:00Z", seconds=1, host="h")
    other = Report(name="b", cases=(failed(FailureKind.AUTH),), started="2026-01-01T00:00:00Z", seconds=2, host="h")
    both = merged("all", [one, other])
    assert (both.seconds, both.started, len(both.cases), both.exit_code) == (3, other.started, 2, EXIT_AUTH)
