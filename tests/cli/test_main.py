import errno
import importlib
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from xproxy import __version__
from xproxy.cli.main import COMMANDS, cli, main
from xproxy.errors import ConfigProblem, ConfigProblems, UsageProblem


@pytest.fixture
def fail(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], int]:
    """Run the command line with a command that fails in this way, and return the exit code."""

    def run(error: BaseException) -> int:
        def invoke(ctx: click.Context) -> None:
            raise error

        monkeypatch.setattr(cli, "invoke", invoke)
        return main(["events"])

    return run


def test_the_version_is_told() -> None:
    result = CliRunner().invoke(cli, ["--version"], prog_name="xproxy")
    assert result.output == f"xproxy {__version__}\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_in_the_table_is_there_and_has_help(name: str) -> None:
    command = getattr(importlib.import_module(COMMANDS[name].module), COMMANDS[name].attribute)
    assert isinstance(command, click.Command)
    result = CliRunner().invoke(cli, [name, "--help"])
    assert result.exit_code == 0
    assert "Usage:" in result.output


def all_groups(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if isinstance(command, click.Group):
        yield path
        with click.Context(command) as context:
            for name in command.list_commands(context):
                found = command.get_command(context, name)
                assert found is not None
                yield from all_groups(found, (*path, name))


def test_no_line_of_a_list_of_commands_is_cut_off() -> None:
    groups = list(all_groups(cli))
    assert len(groups) > 6
    assert [
        path for path in groups if "...\n" in CliRunner().invoke(cli, [*path, "--help"]).output.partition("\n")[2]
    ] == []


def test_help_lists_commands_examples_and_exit_codes() -> None:
    output = CliRunner().invoke(cli, ["--help"]).output
    assert all(f"\n  {name} " in output for name in COMMANDS)
    assert "xproxy run --upstream xmpp.example.org:5222" in output
    assert "Exit codes:" in output


def test_help_imports_no_heavy_module() -> None:
    heavy = "{'trio', 'lxml', 'cryptography', 'rich', 'orjson', 'cattrs'}"
    code = (
        f"import sys; from xproxy.cli.main import main; main(['--help']); sys.exit(str(sys.modules.keys() & {heavy}))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.stderr == "set()\n"


def test_an_unknown_command_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rnu"]) == 2
    assert "No such command 'rnu'" in capsys.readouterr().err


def test_all_problems_are_printed_with_their_places(
    fail: Callable[[BaseException], int], capsys: pytest.CaptureFixture[str]
) -> None:
    problems = [ConfigProblem(where="a.toml:1", message="one", hint="do"), ConfigProblem(where="--b", message="two")]
    assert fail(ConfigProblems(problems)) == 2
    assert capsys.readouterr().err == "xproxy: the configuration has 2 problems\n  a.toml:1: one: do\n  --b: two\n"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageProblem("no", "yes"), 2),
        (ExceptionGroup("nursery", [ExceptionGroup("nursery", [UsageProblem("no", "yes")])]), 2),
        (KeyboardInterrupt(), 130),
        (BaseExceptionGroup("nursery", [KeyboardInterrupt()]), 130),
        (click.Abort(), 130),
        (ValueError("hunter2"), 3),
        (ExceptionGroup("nursery", [UsageProblem("no"), ValueError("hunter2")]), 3),
    ],
)
def test_what_goes_wrong_has_its_exit_code_and_never_a_traceback(
    fail: Callable[[BaseException], int], capsys: pytest.CaptureFixture[str], error: Any, code: int
) -> None:
    assert fail(error) == code
    err = capsys.readouterr().err
    assert "Traceback" not in err
    assert "hunter2" not in err  # the text of a bug's exception may quote a peer
    assert ("internal error" in err) == (code == 3)
    assert ("no\n  yes\n" in err) == (code == 2)


def test_a_command_that_is_nearly_one_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sesions"]) == 2
    assert "did you mean sessions?" in capsys.readouterr().err


def test_a_full_disk_where_the_output_goes_is_no_error_of_ours(
    fail: Callable[[BaseException], int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert fail(OSError(errno.ENOSPC, "No space left on device")) == 3
    assert "cannot write the output: No space left on device" in capsys.readouterr().err


def test_a_reader_that_goes_away_is_no_answer_of_ours():
    """As the shell counts it (128 + SIGPIPE), and nothing on stderr: 1 would say that there is a difference."""
    vectors = Path(__file__).parent.parent / "vectors" / "captures"
    command = [sys.executable, "-m", "xproxy", "replay", "offline", str(vectors)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 128 + signal.SIGPIPE


def test_an_interrupt_while_modules_are_read_is_no_traceback() -> None:
    """Ctrl-C in the first tenth of a second."""
    code = (
        "import sys, builtins\n"
        "import xproxy.__main__ as entry\n"
        "def interrupted(*args, **kwargs): raise KeyboardInterrupt\n"
        "builtins.__import__ = interrupted\n"
        "sys.exit(entry.main())"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (130, "")
