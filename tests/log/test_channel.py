import errno
import logging
import threading
import weakref

import pytest
import trio
import trio.testing

from tests.support.samples import FULL
from xproxy.events import Level
from xproxy.log.channel import OutputGone, RecordChannel
from xproxy.log.filters import LevelFilter
from xproxy.record.recorder import Observer, ProxyRecorder, Record

OBSERVER = Observer(version="0.1.0", hostname="gw1", boot_id="b" * 32)
EVERYTHING = LevelFilter(Level.DEBUG)
NO_SPACE = OSError(errno.ENOSPC, "No space left on device")
PATIENCE = 5.0  # seconds; only a broken channel gets near it


def records(count, start=0):
    recorder = ProxyRecorder(observer=OBSERVER)
    made = [recorder.record(FULL[0], 0) for _ in range(start + count)]
    return made[start:]


class Memory:
    """An output that can be held, and that fails when told."""

    def __init__(self, failures=()):
        self.name = "memory"
        self.pending = []
        self.written = []
        self.batches = []
        self.failures = list(failures)
        self.may_write = threading.Event()
        self.may_write.set()
        self.has_failed = threading.Event()
        self.reopened_count = 0
        self.reopen_problem = None
        self.is_closed = False

    def take(self, records):
        self.pending.extend(records)

    def flush(self):
        assert self.may_write.wait(PATIENCE)
        if self.failures:
            self.has_failed.set()
            raise self.failures.pop(0)
        self.batches.append(len(self.pending))
        self.written += self.pending
        self.pending = []

    def reopen(self):
        if self.reopen_problem is not None:
            raise self.reopen_problem
        self.reopened_count += 1

    def close(self):
        self.is_closed = True


def channel_to(*outputs, records_max=100, **options):
    channel = RecordChannel(records_max=records_max, retry_seconds_min=0.001, **options)
    for output in outputs:
        channel.add_output(output, EVERYTHING)
    return channel


def test_everything_arrives_in_order_at_every_output():
    first, second = Memory(), Memory()
    channel = channel_to(first, second)
    channel.start()
    sent = records(5_000)
    for start in range(0, 5_000, 7):
        channel.put_nowait(sent[start : start + 7])
    assert channel.close() == 0
    assert first.written == second.written == sent
    assert max(first.batches) > 7  # turns are written together
    assert first.is_closed
    assert second.is_closed
    assert channel.close() == 0


def test_what_is_put_before_the_start_is_written():
    output = Memory()
    channel = channel_to(output)
    channel.put_nowait(records(3))
    channel.start()
    assert channel.close() == 0
    assert len(output.written) == 3


def test_a_record_that_was_written_is_not_kept_until_the_next_one_comes():
    class Forgetful(Memory):
        def flush(self):
            self.pending = []

    is_gone = threading.Event()
    channel = channel_to(Forgetful())
    channel.start()
    batch = records(1)
    weakref.finalize(batch[0], is_gone.set)
    channel.put_nowait(batch)
    del batch
    assert is_gone.wait(PATIENCE)
    channel.close()


def test_a_record_does_not_wait_for_the_next_one():
    output = Memory()
    output.may_write.clear()
    channel = channel_to(output)
    channel.start()
    channel.put_nowait(records(1))
    output.may_write.set()
    deadline = threading.Event()
    for _ in range(500):
        if channel.waiting_count == 0:
            break
        deadline.wait(0.01)
    assert len(output.written) == 1
    channel.close()


def test_above_the_high_mark_it_is_full_and_still_takes_the_turn():
    channel = channel_to(Memory(), records_max=100, high_mark=10)
    channel.put_nowait(records(10))
    assert not channel.is_full
    channel.put_nowait(records(50))
    assert channel.is_full
    assert channel.waiting_count == 60


def test_the_high_mark_is_three_quarters():
    assert RecordChannel(records_max=65_536).high_mark == 49_152


async def test_a_full_channel_is_waited_for_until_there_is_room():
    output = Memory()
    output.may_write.clear()
    channel = channel_to(output, high_mark=10)
    channel.start()
    await channel.wait_not_full()
    channel.put_nowait(records(50))
    through = []

    async def wait(number):
        await channel.wait_not_full()
        through.append((number, channel.is_full))

    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            for number in range(3):
                nursery.start_soon(wait, number)
            await trio.testing.wait_all_tasks_blocked()
            assert through == []
            # Records in the writer thread's hands are not written: the channel stays full.
            assert channel.waiting_count == 50
            output.may_write.set()
    assert sorted(through) == [(0, False), (1, False), (2, False)]
    assert channel.close() == 0


async def test_room_that_comes_between_looking_and_waiting_is_not_missed(monkeypatch):
    output = Memory()
    output.may_write.clear()
    channel = channel_to(output, high_mark=10)
    channel.start()
    channel.put_nowait(records(50))
    real = trio.Event

    def late():
        # The writer thread finishes while the waiting task is about to wait.
        output.may_write.set()
        for _ in range(500):
            if channel.waiting_count == 0:
                break
            threading.Event().wait(0.01)
        threading.Event().wait(0.02)
        return real()

    monkeypatch.setattr("xproxy.log.channel.trio.Event", late)
    with trio.fail_after(PATIENCE):
        await channel.wait_not_full()
    monkeypatch.undo()
    assert channel.close() == 0


async def test_filling_and_waiting_again_and_again_never_hangs():
    output = Memory()
    channel = channel_to(output, high_mark=4)
    channel.start()
    sent = records(600)
    with trio.fail_after(PATIENCE):
        for start in range(0, 600, 30):
            channel.put_nowait(sent[start : start + 30])
            await channel.wait_not_full()
    assert channel.close() == 0
    assert output.written == sent


def test_a_full_disk_loses_nothing_and_is_said_once(caplog):
    output = Memory(failures=[NO_SPACE] * 4)
    other = Memory()
    channel = channel_to(output, other)
    channel.start()
    sent = records(20)
    channel.put_nowait(sent)
    assert channel.close(PATIENCE) == 0
    assert output.written == other.written == sent
    assert caplog.messages == [
        "cannot write log memory: No space left on device; traffic waits until it can",
        "log memory can be written again; nothing was lost",
    ]


async def test_a_full_disk_fills_the_channel_and_space_frees_it():
    output = Memory(failures=[NO_SPACE] * 5)
    channel = channel_to(output, high_mark=10)
    channel.start()
    channel.put_nowait(records(50))
    with trio.fail_after(PATIENCE):
        await channel.wait_not_full()
    assert channel.close() == 0
    assert len(output.written) == 50


def test_a_disk_that_stays_full_is_given_up_at_the_end_and_the_loss_is_said(caplog):
    output = Memory(failures=[NO_SPACE] * 1_000_000)
    channel = channel_to(output)
    channel.start()
    channel.put_nowait(records(7))
    assert channel.close(0.05) == 7
    assert caplog.messages[-1] == "7 records could not be written before the end"
    assert caplog.records[-1].levelno == logging.ERROR


async def test_a_broken_pipe_ends_the_program_and_not_the_other_outputs():
    gone = OutputGone("cannot write log standard output: nobody reads it any more")
    pipe, file = Memory(failures=[gone]), Memory()
    told = []
    happened = trio.Event()

    def on_fatal(problem):
        told.append((problem, trio.lowlevel.in_trio_run()))
        happened.set()

    channel = channel_to(pipe, file, on_fatal=on_fatal)
    channel.start()
    sent = records(10)
    channel.put_nowait(sent[:5])
    with trio.fail_after(PATIENCE):
        await happened.wait()
    channel.put_nowait(sent[5:])
    assert channel.close() == 5  # what the pipe did not get while it was an output
    assert told == [(gone, True)]
    assert pipe.is_closed
    assert file.written == sent


def test_without_any_output_left_records_count_as_lost():
    gone = OutputGone("gone")
    told = []
    channel = channel_to(Memory(failures=[gone]), on_fatal=told.append)
    channel.start()
    channel.put_nowait(records(2))
    for _ in range(500):
        if told:
            break
        threading.Event().wait(0.01)
    channel.put_nowait(records(3))
    assert channel.close() == 5


async def test_reopen_reaches_every_output_and_reports_the_first_problem():
    good, bad, last = Memory(), Memory(), Memory()
    bad.reopen_problem = PermissionError(errno.EACCES, "Permission denied")
    channel = channel_to(good, bad, last)
    channel.start()
    channel.put_nowait(records(1))
    with trio.fail_after(PATIENCE), pytest.raises(PermissionError):
        await channel.reopen()
    bad.reopen_problem = None
    with trio.fail_after(PATIENCE):
        await channel.reopen()
    assert (good.reopened_count, bad.reopened_count, last.reopened_count) == (2, 1, 2)
    assert channel.close() == 0


async def test_reopen_is_served_while_the_disk_is_full():
    output = Memory(failures=[NO_SPACE] * 1_000_000)
    channel = channel_to(output)
    channel.start()
    channel.put_nowait(records(4))
    assert output.has_failed.wait(PATIENCE)
    with trio.fail_after(PATIENCE):
        await channel.reopen()
    assert output.reopened_count == 1
    assert channel.waiting_count == 4
    output.failures.clear()
    assert channel.close() == 0
    assert len(output.written) == 4


def test_each_output_has_its_own_level_and_it_can_change():
    levels = LevelFilter(Level.WARNING)
    few, all_of_it = Memory(), Memory()
    channel = RecordChannel(records_max=100)
    channel.add_output(few, levels)
    channel.add_output(all_of_it, EVERYTHING)
    channel.start()
    made = [Record({}, level, "x") for level in Level]
    channel.put_nowait(made)
    for _ in range(500):
        if channel.waiting_count == 0:
            break
        threading.Event().wait(0.01)
    levels.level = Level.CRITICAL
    channel.put_nowait(made)
    channel.close()
    assert [record.level for record in few.written] == [Level.WARNING, Level.ERROR, Level.CRITICAL, Level.CRITICAL]
    assert all_of_it.written == made * 2
