"""The export as tiles, judged by Go's own x/mod/sumdb (tests/journal/go)."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.signing import Key
from xproxy.journal.note import Checkpoint
from xproxy.journal.tiles import TileWriter, tile_path
from xproxy.journal.tree import EMPTY_ROOT, leaf_hash, root_of

ORIGIN = "gw1.example.org/xproxy/test/sec"
SIZES = [1, 2, 255, 256, 257, 600, 65_536 + 300]


def export(directory: Path, size: int, key: Key) -> None:
    writer = TileWriter(directory)
    writer.add(b"entry %d" % index for index in range(size))
    writer.finish(Checkpoint(ORIGIN, size, writer.root()).sign([key]).to_bytes())


@pytest.mark.parametrize(
    ("number", "width", "path"),
    [
        (0, 256, "tile/0/000"),
        (999, 1, "tile/0/999.p/1"),
        (1000, 256, "tile/0/x001/000"),
        (1_234_067, 8, "tile/0/x001/x234/067.p/8"),  # the example of tlog-tiles
    ],
)
def test_paths(number: int, width: int, path: str) -> None:
    assert tile_path(0, number, width) == path


def test_the_files_of_a_small_log(tmp_path: Path) -> None:
    key = Key.make(ORIGIN)
    export(tmp_path / "export", 257, key)
    files = {str(path.relative_to(tmp_path / "export")) for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {
        "checkpoint",
        "tile/0/000",
        "tile/0/001.p/1",
        "tile/1/000.p/1",
        "tile/entries/000",
        "tile/entries/001.p/1",
    }
    leaves = [leaf_hash(b"entry %d" % index) for index in range(257)]
    assert (tmp_path / "export/tile/0/000").read_bytes() == b"".join(leaves[:256])
    assert (tmp_path / "export/tile/0/001.p/1").read_bytes() == leaves[256]
    assert (tmp_path / "export/tile/1/000.p/1").read_bytes() == root_of(leaves[:256])
    assert (tmp_path / "export/tile/entries/001.p/1").read_bytes() == b"\x00\x09entry 256"


def test_the_root_is_that_of_the_tree(tmp_path: Path) -> None:
    writer = TileWriter(tmp_path)
    assert writer.root() == EMPTY_ROOT
    writer.add([b"a", b"", b"c"])
    assert writer.size == 3
    assert writer.root() == root_of([leaf_hash(b"a"), leaf_hash(b""), leaf_hash(b"c")])


def test_an_entry_that_has_no_place_in_a_tile_is_refused(tmp_path: Path) -> None:
    writer = TileWriter(tmp_path)
    writer.add([bytes(65_535)])
    with pytest.raises(ValueError, match="entry 1 of 65536 bytes"):
        writer.add([bytes(65_536)])


@given(st.lists(st.binary(max_size=20), max_size=600), st.integers(0, 600))
def test_in_how_many_steps_makes_no_difference(entries: list[bytes], cut: int) -> None:
    whole, parts = _Memory(Path("whole")), _Memory(Path("parts"))
    whole.add(entries)
    parts.add(entries[:cut])
    parts.add(entries[cut:])
    assert whole.root() == parts.root()
    assert whole.files == parts.files


class _Memory(TileWriter):
    """Keeps what it would write."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.files: dict[str, bytes] = {}

    def _write(self, level: int | str, number: int, data: bytes, width: int) -> None:
        self.files[tile_path(level, number, width)] = data


# --- Go's judgement ----------------------------------------------------------------------------------------------

go = pytest.mark.integration("go")


@pytest.fixture(scope="session")
def tlogcheck(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The verifier, built from the module as it is published."""
    program = tmp_path_factory.mktemp("go") / "tlogcheck"
    built = subprocess.run(
        ["go", "build", "-mod=readonly", "-buildvcs=false", "-o", program, "."],
        cwd=Path(__file__).parent / "go",
        env=os.environ | {"GOTOOLCHAIN": "local", "GOWORK": "off", "GOFLAGS": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    if built.returncode != 0:
        pytest.skip(f"cannot build tests/journal/go (is a Go module proxy reachable?): {built.stderr.strip()}")
    return program


def judge(program: Path, directory: Path, key: Key, *older: Path) -> "subprocess.CompletedProcess[str]":
    command = [program, directory, str(key.verifier), *older]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@go
@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
def test_go_accepts_an_export(tlogcheck: Path, tmp_path: Path, size: int) -> None:
    key = Key.make(ORIGIN)
    export(tmp_path / "export", size, key)
    judged = judge(tlogcheck, tmp_path / "export", key)
    assert (judged.stderr, judged.stdout.split()[:2]) == ("", ["ok", str(size)])


@go
@pytest.mark.slow
def test_go_accepts_an_older_checkpoint_of_the_same_log_and_no_other(tlogcheck: Path, tmp_path: Path) -> None:
    key = Key.make(ORIGIN)
    for size in (300, 700):
        export(tmp_path / str(size), size, key)
    older, forked = tmp_path / "300" / "checkpoint", tmp_path / "forked"
    assert judge(tlogcheck, tmp_path / "700", key, older).returncode == 0
    forked.write_bytes(Checkpoint(ORIGIN, 300, bytes(32)).sign([key]).to_bytes())
    assert "not a prefix of the log" in judge(tlogcheck, tmp_path / "700", key, forked).stderr


@go
@pytest.mark.slow
def test_go_refuses_the_key_of_another(tlogcheck: Path, tmp_path: Path) -> None:
    export(tmp_path, 3, Key.make(ORIGIN))
    assert "checkpoint:" in judge(tlogcheck, tmp_path, Key.make(ORIGIN)).stderr


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def swap(one: Path, other: Path) -> None:
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)


@go
@pytest.mark.slow
def test_go_refuses_each_tampering(tlogcheck: Path, tmp_path: Path) -> None:
    """Every file of an export of two levels: a bit flipped, a byte less, a byte more, gone; neighbours swapped."""
    key = Key.make(ORIGIN)
    export(tmp_path / "good", 700, key)
    assert judge(tlogcheck, tmp_path / "good", key).returncode == 0
    files = sorted(path.relative_to(tmp_path / "good") for path in tmp_path.rglob("*") if path.is_file())
    assert len(files) == 8  # the checkpoint, 3 bundles, 3 tiles, the tile above

    def refuses(change, *names) -> bool:  # type: ignore[no-untyped-def]
        shutil.rmtree(tmp_path / "bad", ignore_errors=True)
        shutil.copytree(tmp_path / "good", tmp_path / "bad")
        change(*(tmp_path / "bad" / name for name in names))
        return judge(tlogcheck, tmp_path / "bad", key).returncode == 1

    for name in files:
        for change in (flip, cut, lengthen, Path.unlink):
            assert refuses(change, name), f"{change.__name__} {name}"
    for directory in ("tile/entries", "tile/0"):
        assert refuses(swap, f"{directory}/000", f"{directory}/001")


@go
@pytest.mark.slow
def test_go_refuses_a_checkpoint_that_says_more(tlogcheck: Path, tmp_path: Path) -> None:
    key = Key.make(ORIGIN)
    export(tmp_path, 700, key)
    note = (tmp_path / "checkpoint").read_text()
    (tmp_path / "checkpoint").write_text(note.replace("\n700\n", "\n600\n"))
    assert "invalid signature" in judge(tlogcheck, tmp_path, key).stderr
