import os
import threading
from pathlib import Path

import pytest

from tests.replay.conftest import SAMPLE
from xproxy.capture.cassette_xml import read_cassette
from xproxy.errors import FileProblem, UsageProblem
from xproxy.replay.passwords import collect_passwords, variable_of

CASSETTE = read_cassette(SAMPLE)


def test_options_beat_the_file_which_beats_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "passwords"
    file.write_text("# of the replay alone\n\njuliet=from=file\n")
    file.chmod(0o600)
    environment = {variable_of("juliet"): "from-environment"}
    assert collect_passwords(CASSETTE, [], None, environment) == {"juliet": "from-environment"}
    assert collect_passwords(CASSETTE, [], file, environment) == {"juliet": "from=file"}
    assert collect_passwords(CASSETTE, ["juliet=from-option"], file, environment) == {"juliet": "from-option"}


def test_a_missing_password_says_how_to_give_it() -> None:
    with pytest.raises(UsageProblem, match=r"no password for juliet.*XPROXY_PASSWORD_JULIET"):
        collect_passwords(CASSETTE, [], None, {})


@pytest.mark.parametrize("given", ["canary-alone", "romeo=canary-x", "juliet="])
def test_what_is_no_pair_is_refused_and_not_repeated(given: str) -> None:
    with pytest.raises(UsageProblem, match="NAME=VALUE") as caught:
        collect_passwords(CASSETTE, [given], None, {})
    assert "canary" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileProblem):
        collect_passwords(CASSETTE, [], tmp_path / "none", {})


def test_names_become_variables() -> None:
    assert variable_of("alice-2.x") == "XPROXY_PASSWORD_ALICE_2_X"


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
def test_a_file_that_others_may_read_is_refused_as_ssh_does(mode: int, tmp_path: Path) -> None:
    file = tmp_path / "passwords"
    file.write_text("juliet=canary-x\n")
    file.chmod(mode)
    with pytest.raises(FileProblem, match=rf"others may read .*\(mode {mode:04o}\): run chmod 600") as caught:
        collect_passwords(CASSETTE, [], file, {})
    assert "canary" not in str(caught.value)


def test_what_the_shell_hands_over_is_no_file_that_others_may_read(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe, 0o644)
    writer = threading.Thread(target=pipe.write_text, args=("juliet=from-pipe\n",))
    writer.start()
    assert collect_passwords(CASSETTE, [], pipe, {}) == {"juliet": "from-pipe"}
    writer.join()
