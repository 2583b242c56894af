import errno
import os
import threading

import orjson
import pytest

from tests.support.samples import FULL
from xproxy.errors import FileProblem
from xproxy.events import Level
from xproxy.log.channel import OutputGone, RecordChannel
from xproxy.log.filters import LevelFilter
from xproxy.log.jsonl import JsonLinesFile
from xproxy.record.recorder import Observer, ProxyRecorder

OBSERVER = Observer(version="0.1.0", hostname="gw1", boot_id="b" * 32)


def records(count):
    recorder = ProxyRecorder(observer=OBSERVER)
    return [recorder.record(FULL[number % len(FULL)], number) for number in range(count)]


def lines(made):
    return b"".join(record.to_json() for record in made)


class Disk:
    """``os.write`` that takes what ``allowances`` say: a number of octets, or an error."""

    def __init__(self, *allowances):
        self.allowances = list(allowances)
        self.calls = 0

    def write(self, descriptor, data):
        self.calls += 1
        allowance = self.allowances.pop(0) if self.allowances else len(data)
        if isinstance(allowance, OSError):
            raise allowance
        return os.write(descriptor, data[:allowance])


def full():
    return OSError(errno.ENOSPC, "No space left on device")


def test_a_new_file_is_for_its_owner_alone(tmp_path):
    path = tmp_path / "log.jsonl"
    before = os.umask(0)
    try:
        output = JsonLinesFile(path)
    finally:
        os.umask(before)
    output.close()
    assert path.stat().st_mode & 0o777 == 0o600
    assert output.name == str(path)


def test_records_are_appended_with_one_write(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"old":1}\n')
    disk = Disk()
    output = JsonLinesFile(path, write=disk.write)
    made = records(40)
    output.take(made)
    output.flush()
    output.close()
    assert disk.calls == 1
    assert path.read_bytes() == b'{"old":1}\n' + lines(made)
    assert [orjson.loads(line)["event"]["id"] for line in path.read_bytes().splitlines()[1:]] == [
        f"{'b' * 32}-{number}" for number in range(1, 41)
    ]


def test_a_torn_line_of_an_earlier_run_is_ended_first(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"torn":')
    output = JsonLinesFile(path)
    made = records(1)
    output.take(made)
    output.flush()
    output.close()
    assert path.read_bytes() == b'{"torn":\n' + lines(made)


@pytest.mark.parametrize("cut", [0, 1, 100, 700, 1_500])
def test_a_line_written_in_part_is_continued_exactly(tmp_path, cut):
    path = tmp_path / "log.jsonl"
    output = JsonLinesFile(path, write=Disk(cut, full(), 3, full(), full()).write)
    made = records(3)
    output.take(made[:2])
    for _ in range(3):
        with pytest.raises(OSError, match="No space left"):
            output.flush()
    output.take(made[2:])  # more comes while it fails
    output.flush()
    output.flush()
    output.close()
    assert path.read_bytes() == lines(made)


def test_reopen_follows_a_rotated_file(tmp_path):
    path, old = tmp_path / "log.jsonl", tmp_path / "log.jsonl.1"
    output = JsonLinesFile(path)
    made = records(2)
    output.take(made[:1])
    output.flush()
    path.rename(old)
    output.reopen()
    output.take(made[1:])
    output.flush()
    output.close()
    assert old.read_bytes() == lines(made[:1])
    assert path.read_bytes() == lines(made[1:])


def test_reopen_ends_a_begun_line_in_the_old_file(tmp_path):
    path, old = tmp_path / "log.jsonl", tmp_path / "log.jsonl.1"
    made = records(2)
    output = JsonLinesFile(path, write=Disk(10, full()).write)
    output.take(made)
    with pytest.raises(OSError, match="No space left"):
        output.flush()
    path.rename(old)
    output.reopen()
    output.flush()
    output.close()
    assert old.read_bytes() == lines(made[:1])
    assert path.read_bytes() == lines(made[1:])


def test_a_begun_line_that_the_old_file_cannot_take_is_whole_in_the_new_one(tmp_path):
    path, old = tmp_path / "log.jsonl", tmp_path / "log.jsonl.1"
    made = records(2)
    first = len(lines(made[:1]))
    output = JsonLinesFile(path, write=Disk(first + 10, full(), full()).write)
    output.take(made)
    with pytest.raises(OSError, match="No space left"):
        output.flush()
    path.rename(old)
    output.reopen()
    output.flush()
    output.close()
    assert old.read_bytes() == lines(made)[: first + 10]
    assert path.read_bytes() == lines(made[1:])


def test_a_failed_reopen_leaves_the_old_file_in_use(tmp_path):
    directory = tmp_path / "logs"
    directory.mkdir()
    path = directory / "log.jsonl"
    output = JsonLinesFile(path)
    directory.rename(tmp_path / "moved")
    with pytest.raises(FileNotFoundError):
        output.reopen()
    made = records(1)
    output.take(made)
    output.flush()
    output.close()
    assert (tmp_path / "moved" / "log.jsonl").read_bytes() == lines(made)


def test_a_path_that_cannot_be_opened_is_said_with_the_path(tmp_path):
    path = tmp_path / "missing" / "log.jsonl"
    with pytest.raises(FileProblem, match=r"cannot open the log file .*log\.jsonl: No such file") as caught:
        JsonLinesFile(path)
    assert caught.value.path == path


def test_a_fifo_that_nobody_reads_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(FileProblem, match="cannot open the log file") as problem:
        JsonLinesFile(tmp_path / "fifo")
    assert problem.value.hint == "start the program that reads it first"


def test_a_pipe_without_reader_is_gone(capfd):
    output = JsonLinesFile("-", write=Disk(BrokenPipeError(errno.EPIPE, "Broken pipe")).write)
    output.take(records(1))
    with pytest.raises(OutputGone, match="standard output: nobody reads it"):
        output.flush()


def test_standard_output_is_written_and_never_closed(capfdbinary):
    output = JsonLinesFile("-")
    made = records(2)
    output.take(made)
    output.flush()
    output.reopen()
    output.close()
    os.write(1, b"still open\n")
    assert capfdbinary.readouterr().out == lines(made) + b"still open\n"


def test_a_slow_reader_of_a_pipe_gets_every_record_in_order(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    received = []

    def read():
        while piece := os.read(pipe, 4_096):
            received.append(piece)

    pipe = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # there is a reader before anybody writes
    os.set_blocking(pipe, True)
    output = JsonLinesFile(path)
    reader = threading.Thread(target=read)
    reader.start()
    channel = RecordChannel(records_max=10_000)
    channel.add_output(output, LevelFilter(Level.DEBUG))
    channel.start()
    made = records(1_000)  # about 1 MB through a pipe of 64 KiB
    for start in range(0, 1_000, 10):
        channel.put_nowait(made[start : start + 10])
    assert channel.close() == 0
    reader.join(5)
    os.close(pipe)
    assert b"".join(received) == lines(made)


def test_a_pipe_that_is_full_and_non_blocking_is_waited_for(tmp_path):
    path = tmp_path / "log.jsonl"
    made = records(2)
    output = JsonLinesFile(path, write=Disk(20, BlockingIOError(errno.EAGAIN, "again"), 5).write)
    output.take(made)
    output.flush()
    output.close()
    assert path.read_bytes() == lines(made)
