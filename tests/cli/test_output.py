import io
from pathlib import Path

import pytest
from rich.console import Console

from xproxy.cli.output import choose_format, is_terminal, print_error
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
