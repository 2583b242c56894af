import io
import os
import threading
from pathlib import Path

import pytest
from rich.console import Console

from xproxy.cli.output import choose_format, is_terminal, print_error, replace_file
from xproxy.errors import ConfigProblem, ConfigProblems, FileProblem


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("wanted", "stream", "chosen"),
    [
        ("auto", Terminal(), "human"),
        ("auto", io.StringIO(), "json"),
        ("human", io.StringIO(), "human"),
        ("json", Terminal(), "json"),
    ],
    ids=["terminal", "pipe", "human", "json"],
)
def test_people_get_lines_and_pipes_get_json(wanted, stream, chosen):
    assert choose_format(wanted, stream) == chosen


def test_a_closed_stream_is_no_terminal():
    stream = io.StringIO()
    stream.close()
    assert not is_terminal(stream)


def shown(error):
    file = io.StringIO()
    print_error(error, Console(file=file, width=40, color_system=None))
    return file.getvalue()


def test_an_error_says_what_and_what_to_do():
    error = FileProblem("cannot read [the] key file key.pem: Permission denied", "check owner", path=Path("key.pem"))
    assert shown(error) == "xproxy: cannot read [the] key file key.pem: Permission denied\n  check owner\n"


def test_configuration_problems_are_all_shown():
    problems = ConfigProblems(
        [
            ConfigProblem(where="xproxy.toml:3", message="unknown key"),
            ConfigProblem(where="--listen", message="no port"),
        ]
    )
    assert shown(problems).splitlines() == [
        "xproxy: the configuration has 2 problems",
        "  xproxy.toml:3: unknown key",
        "  --listen: no port",
    ]


def test_two_threads_that_replace_one_file_do_not_disturb_each_other(tmp_path):
    path, failed, begin = tmp_path / "cassette", [], threading.Barrier(4)

    def write(text):
        begin.wait()
        for _ in range(25):
            try:
                replace_file(path, text)
            except FileProblem as problem:
                failed.append(problem)

    threads = [threading.Thread(target=write, args=(letter * 100_000,)) for letter in (b"a", b"b", b"c", b"d")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert len(set(path.read_bytes())) == 1
    assert os.listdir(tmp_path) == ["cassette"]


def test_a_replaced_file_keeps_its_mode_and_its_link(tmp_path):
    path, link = tmp_path / "cassette", tmp_path / "link"
    path.write_text("old")
    path.chmod(0o640)
    link.symlink_to(path)
    replace_file(link, b"new")
    assert link.is_symlink()
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("new", 0o640)


def test_a_new_file_has_what_the_umask_leaves(tmp_path):
    before = os.umask(0o027)
    try:
        replace_file(tmp_path / "new", b"")
    finally:
        os.umask(before)
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o640


def test_what_is_no_regular_file_is_written_as_it_is():
    replace_file(Path("/dev/null"), b"nothing")
    assert Path("/dev/null").is_char_device()
