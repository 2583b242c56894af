import json
import re
from pathlib import Path

import attrs
import pytest

from tests.support.traces import META, conn, cut_off, every_kind, render
from xproxy.capture.trace import (
    LINE_BYTES_MAX,
    VERSION,
    Conn,
    Gap,
    Meta,
    TraceLine,
    TraceProblem,
    read_sessions,
    read_trace,
    session_line,
)
from xproxy.errors import FileProblem


def write(path: Path, data: bytes) -> Path:
    file = path / "x.xcap.jsonl"
    file.write_bytes(data)
    return file


def read(path: Path, data: bytes) -> list[TraceLine]:
    return list(read_trace(write(path, data)))


def problem_of(path: Path, data: bytes) -> TraceProblem:
    with pytest.raises(TraceProblem) as caught:
        read(path, data)
    assert str(caught.value).startswith(f"{path}/x.xcap.jsonl:{caught.value.line}: ")
    assert "\n" not in str(caught.value)
    return caught.value


def test_what_is_written_is_read(tmp_path: Path) -> None:
    lines = every_kind()
    assert read(tmp_path, render(lines)) == [META, *lines]
    assert [attrs.evolve(line, session=2) for line in read(tmp_path, render(cut_off()))[1:]] == cut_off()


def test_no_key_is_in_a_capture() -> None:
    line = conn(policy=attrs.evolve(conn().policy, correlation_key=b"0123456789abcdef"))
    assert b"0123456789abcdef" not in session_line(line).replace(line.trace_id.encode(), b"")
    assert b"correlation_key" not in session_line(line)


def test_sessions_are_gathered(tmp_path: Path) -> None:
    first, second = every_kind(), [attrs.evolve(line, session=2) for line in every_kind()]
    mixed = [line for pair in zip(first, second, strict=True) for line in pair]
    found = list(read_sessions(write(tmp_path, render(mixed))))
    assert [session.conn.session for session in found] == [1, 2]
    assert [[line.n for line in session.lines] for session in found] == [[line.n for line in first[1:]]] * 2
    assert not any(session.is_whole for session in found)  # there are gaps in them


def test_files_can_be_appended_to_each_other(tmp_path: Path) -> None:
    lines = read(tmp_path, render(every_kind()) * 3)
    assert [line.session for line in lines if isinstance(line, Conn)] == [1, 2, 3]
    assert sum(isinstance(line, Meta) for line in lines) == 3


def test_a_line_that_was_being_written_is_none(tmp_path: Path) -> None:
    whole = render(every_kind())
    complete = whole.count(b"\n")
    last = whole[:-1].rfind(b"\n") + 1
    for end in range(last, len(whole)):
        assert len(read(tmp_path, whole[:end])) == complete - 1


@pytest.mark.slow
def test_a_file_cut_at_any_byte_is_a_shorter_file_or_no_capture(tmp_path: Path) -> None:
    whole = render(every_kind())
    all_of_it = read(tmp_path, whole)
    for end in range(len(whole)):
        data = whole[:end]
        if b"\n" in data:
            lines = read(tmp_path, data)
            assert lines == all_of_it[: len(lines)]
            assert len(lines) == data.count(b"\n")
        else:
            assert "no complete line" in str(problem_of(tmp_path, data))


@pytest.mark.slow
def test_an_octet_changed_anywhere_is_another_value_or_a_problem(tmp_path: Path) -> None:
    whole = bytearray(render(every_kind()))
    for at in range(0, len(whole), 5):
        for octet in (0, 0x22, 0x7B, 0x0A, 0xFF, whole[at] ^ 1):
            damaged = bytes(whole[:at]) + bytes([octet]) + bytes(whole[at + 1 :])
            try:
                read(tmp_path, damaged)
            except TraceProblem as problem:
                assert re.match(rf"{tmp_path}/x\.xcap\.jsonl:[0-9]+: ", str(problem))  # noqa: PT017
                assert len(str(problem)) < len(str(tmp_path)) + 250  # noqa: PT017


def test_a_missing_line_is_missed(tmp_path: Path) -> None:
    lines = every_kind()
    problem = problem_of(tmp_path, render([*lines[:4], *lines[5:]]))
    assert problem.line == 6
    assert "line 5 of session 1 is missing: this is 6" in str(problem)


def test_behind_its_end_a_session_has_no_lines(tmp_path: Path) -> None:
    lines = every_kind()
    for more in (attrs.evolve(lines[2], n=len(lines) + 1), conn()):
        assert "session 1" in str(problem_of(tmp_path, render([*lines, more])))


def test_a_gap_may_stand_for_many_lines(tmp_path: Path) -> None:
    gap = Gap(session=1, n=57, t_ns=0, line=3, lines=56, bytes=9_000)
    after = attrs.evolve(every_kind()[-1], n=58, line=4)
    assert read(tmp_path, render([conn(), gap, after])) == [META, conn(), gap, after]


def test_a_later_version_is_refused_with_what_to_do(tmp_path: Path) -> None:
    problem = problem_of(tmp_path, render([]).replace(b'"v":2', b'"v":3'))
    assert "the capture is of version 3, this xproxy knows 2: it was made by a later xproxy; update this one" in str(
        problem
    )
    assert problem.exit_code == 2


@pytest.mark.parametrize("data", [b"<stream/>\n", b"{}\n", b"[]\n", b"\x00\n", b'{"k":"conn"}\n', b"\n", b"1\n"])
def test_another_file_is_told_what_belongs_here(data: bytes, tmp_path: Path) -> None:
    assert "name a capture, *.xcap.jsonl" in str(problem_of(tmp_path, data))


@pytest.mark.parametrize(
    "change",
    [
        {"n": "1"}, {"s": True}, {"t": 1.5}, {"k": "cleartext"}, {"d": "c2s"}, {"ph": "x"}, {"raw": None, "b64": "!"},
        {"raw": 7}, {"rt": [[1]]}, {"mem": 3}, {"names": {"limit": 3}}, {"s": 99}, {"n": 77}, {"rt": [["a", "b"]]},
    ],
)  # fmt: skip
def test_a_wrong_value_is_a_problem(change: dict[str, object], tmp_path: Path) -> None:
    lines = every_kind()
    value = json.loads(session_line(lines[3])) | change
    data = render(lines[:3]) + json.dumps(value).encode() + b"\n"
    assert problem_of(tmp_path, data).line == 5


def test_what_is_not_known_is_passed_over(tmp_path: Path) -> None:
    data = b"".join(
        json.dumps(json.loads(line) | {"later": {"a": 1}}).encode() + b"\n"
        for line in render(every_kind()).splitlines()
    )
    assert read(tmp_path, data) == [META, *every_kind()]


@pytest.mark.slow
def test_an_endless_line_is_not_read(tmp_path: Path) -> None:
    assert "longer than" in str(problem_of(tmp_path, render([]) + b" " * (LINE_BYTES_MAX + 10)))


def test_a_directory_is_no_capture(tmp_path: Path) -> None:
    with pytest.raises(FileProblem):
        list(read_trace(tmp_path))
    with pytest.raises(FileProblem):
        list(read_trace(tmp_path / "absent"))


def test_a_file_of_each_version_is_read() -> None:
    files = sorted((Path(__file__).parent.parent / "vectors" / "captures" / "versions").glob("v*.xcap.jsonl"))
    assert [file.name for file in files] == [f"v{number}.xcap.jsonl" for number in range(1, VERSION + 1)]
    for file in files:
        assert len(list(read_trace(file))) > 10
