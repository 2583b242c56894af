import stat
from pathlib import Path

import pytest

from xproxy.config.state import (
    CORRELATION_KEY_FILE,
    IDENTITY_KEY_FILE,
    default_state_directory,
    make_state_directory,
    read_correlation_key,
    read_identity_key,
    replace_identity_key,
)
from xproxy.errors import FileProblem


@pytest.mark.parametrize(
    ("environment", "directory"),
    [
        ({"STATE_DIRECTORY": "/var/lib/xproxy:/var/lib/other", "XDG_STATE_HOME": "/x"}, Path("/var/lib/xproxy")),
        ({"XDG_STATE_HOME": "/x"}, Path("/x/xproxy")),
        ({"XDG_STATE_HOME": "relative"}, Path.home() / ".local/state/xproxy"),
        ({}, Path.home() / ".local/state/xproxy"),
    ],
)
def test_the_state_directory_is_systemds_then_xdgs(environment: dict[str, str], directory: Path) -> None:
    assert default_state_directory(environment) == directory


def test_a_new_directory_is_for_its_owner_alone(tmp_path: Path) -> None:
    directory = tmp_path / "a" / "b"
    make_state_directory(directory)
    make_state_directory(directory)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_a_directory_that_is_there_keeps_its_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    make_state_directory(tmp_path)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


def test_a_directory_for_everybody_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(FileProblem, match="anybody may write"):
        make_state_directory(tmp_path)


def test_a_file_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FileProblem, match="is not a directory: choose another with --state"):
        make_state_directory(tmp_path / "file")
    with pytest.raises(FileProblem, match="cannot make the state directory"):
        make_state_directory(tmp_path / "file" / "below")


def test_the_correlation_key_is_made_once(tmp_path: Path) -> None:
    key = read_correlation_key(tmp_path, lambda count: b"k" * count)
    assert key == b"k" * 32
    assert read_correlation_key(tmp_path, lambda count: b"x" * count) == key
    assert stat.S_IMODE((tmp_path / CORRELATION_KEY_FILE).stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [CORRELATION_KEY_FILE]


def test_of_two_starts_at_once_the_first_keys_both(tmp_path: Path) -> None:
    def random(count: int) -> bytes:
        (tmp_path / CORRELATION_KEY_FILE).write_bytes(b"1" * count)  # the other one, just now
        return b"2" * count

    assert read_correlation_key(tmp_path, random) == b"1" * 32


def test_a_crash_while_it_is_made_leaves_no_half_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", crash)
        with pytest.raises(FileProblem, match="No space left"):
            read_correlation_key(tmp_path, lambda count: b"k" * count)
    assert list(tmp_path.iterdir()) == []
    assert read_correlation_key(tmp_path, lambda count: b"n" * count) == b"n" * 32


def test_what_is_no_key_is_not_replaced_in_silence(tmp_path: Path) -> None:
    (tmp_path / CORRELATION_KEY_FILE).write_bytes(b"short")
    with pytest.raises(FileProblem, match="has 5 bytes, not 32: restore it, or delete it"):
        read_correlation_key(tmp_path, lambda count: b"k" * count)
    assert (tmp_path / CORRELATION_KEY_FILE).read_bytes() == b"short"


def test_the_key_of_pseudonyms_is_made_once_and_replaced_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / IDENTITY_KEY_FILE
    assert read_identity_key(tmp_path, lambda: b"one") == b"one"
    assert read_identity_key(tmp_path, lambda: b"two") == b"one"
    replace_identity_key(tmp_path, b"three")
    assert path.read_bytes() == b"three"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600

    def crash(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", crash)
    with pytest.raises(FileProblem, match="cannot replace the key of pseudonyms"):
        replace_identity_key(tmp_path, b"four")
    assert path.read_bytes() == b"three"
    assert [entry.name for entry in tmp_path.iterdir()] == [IDENTITY_KEY_FILE]
