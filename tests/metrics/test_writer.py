"""The queue and its thread: nothing lost, bounded, never waiting where it must not."""

import logging
import signal
import threading
from collections import deque
from pathlib import Path

import pytest

from vibe_rl.metrics import writer as writer_module
from vibe_rl.metrics.threads import BackgroundThread
from vibe_rl.metrics.writer import Writer

DROPPING = ("drop_oldest", "drop_newest")


class Disk:
    """A file in memory, whose appends can be held up (`gate`) and made to fail (`room`)."""

    def __init__(self):
        self.data = b""
        self.appends = 0
        self.gate = threading.Event()
        self.gate.set()
        self.room = float("inf")
        self.failures = 0

    def append(self, data):
        self.appends += 1
        self.gate.wait()
        if self.room <= 0:
            self.failures += 1
            raise OSError(28, "No space left on device")
        done = int(min(len(data), self.room))
        self.room -= done
        self.data += bytes(data[:done])
        return done

    @property
    def numbers(self):
        return [int(line) for line in self.data.splitlines()]


@pytest.fixture
def disk():
    return Disk()


@pytest.fixture
def start(disk):
    writers = []

    def start(append=disk.append, on_append=lambda: None, **settings):
        settings = {"queue_size": 65_536, "overflow": "block", "flush_interval": 0.1, **settings}
        writers.append(Writer(append, on_append, **settings))
        return writers[-1]

    yield start
    disk.gate.set()
    disk.room = float("inf")
    for writer in writers:
        writer.close()


def put(writer, numbers):
    for number in numbers:
        writer.put(b"%d\n" % number)


def wait_until(condition):
    """Wait for something that must come about; pytest's time-out says that it doesn't."""
    while not condition():
        threading.Event().wait(0.001)


def hold_up(disk, writer):
    """Have the thread stand in an append of one line, number -1, until the gate opens."""
    disk.gate.clear()
    put(writer, [-1])
    wait_until(lambda: disk.appends == 1)


def test_lines_land_in_order_and_flush_waits_for_them(start, disk):
    writer = start()
    put(writer, range(10_000))
    assert writer.flush()
    assert disk.numbers == list(range(10_000))
    assert (writer.written, writer.queued, writer.dropped) == (10_000, 0, 0)


def test_lines_wait_for_the_interval_and_then_land_together(start, disk):
    writer = start(flush_interval=3600)
    put(writer, [0])
    wait_until(lambda: disk.numbers == [0])
    put(writer, range(1, 1_000))
    threading.Event().wait(0.05)  # time enough for a thread that was woken
    assert disk.appends == 1
    assert writer.flush()
    assert disk.numbers == list(range(1_000))
    assert disk.appends == 2
    assert writer.high_water == 999


def test_lines_land_without_being_asked_for(start, disk):
    writer = start(flush_interval=0.01)
    for number in range(5):
        put(writer, [number])
        wait_until(lambda landed=number + 1: len(disk.numbers) == landed)


def test_a_line_that_comes_as_the_thread_falls_asleep_wakes_it(start, disk):
    writer = start()

    class Queue(deque):
        has_come = False

        def __bool__(self):
            is_empty = len(self) == 0
            if is_empty and not self.has_come:
                self.has_come = True
                put(writer, [1])  # as another thread would, right after the look at the queue
            return not is_empty

    writer._queue = Queue()
    put(writer, [0])
    wait_until(lambda: disk.numbers == [0, 1])


def test_an_idle_writer_never_wakes(start, disk):
    writer = start(flush_interval=0.01)
    put(writer, range(100))
    writer.flush()
    wait_until(lambda: writer._asleep)
    status = Path(f"/proc/self/task/{writer._thread.native_id}/status")

    def wake_ups():
        return [line for line in status.read_text().splitlines() if "ctxt_switches" in line]

    def is_asleep():  # and doesn't just wait for the GIL
        before = wake_ups()
        threading.Event().wait(0.05)
        return "S (sleeping)" in status.read_text() and wake_ups() == before

    wait_until(is_asleep)
    before = wake_ups()
    threading.Event().wait(0.3)
    assert wake_ups() == before


def test_block_waits_for_room_and_loses_nothing(start, disk):
    writer = start(queue_size=64)
    hold_up(disk, writer)
    thread = threading.Thread(target=put, args=(writer, range(1_000)))
    thread.start()
    wait_until(lambda: writer.queued == 65)
    thread.join(0.1)
    assert thread.is_alive()
    assert writer.queued == 65  # and one of these is the line that is being appended
    disk.gate.set()
    thread.join()
    writer.flush()
    assert disk.numbers == [-1, *range(1_000)]
    assert writer.dropped == 0
    assert writer.high_water == 64


def test_there_is_room_before_all_that_waited_has_landed(start, disk, monkeypatch):
    monkeypatch.setattr(writer_module, "_BURST_LINES", 1)
    may_append = threading.Semaphore(0)

    def append(data):
        may_append.acquire()
        return disk.append(data)

    writer = start(append, queue_size=4)
    put(writer, [0])
    wait_until(lambda: not writer._queue)  # the thread stands in its append
    put(writer, range(1, 5))
    may_append.release()
    wait_until(lambda: len(writer._queue) == 3)  # it stands in that of 1, and is to append these
    put(writer, [5])
    waiting = threading.Thread(target=put, args=(writer, [6]))
    waiting.start()
    waiting.join(0.1)
    may_append.release()
    waiting.join()  # the thread stands in the append of 2
    may_append.release(5)
    assert writer.flush()
    assert disk.numbers == list(range(7))


@pytest.mark.parametrize("overflow", DROPPING)
def test_the_dropping_policies_never_wait_and_account_for_every_line(start, disk, overflow):
    writer = start(queue_size=64, overflow=overflow)
    hold_up(disk, writer)
    put(writer, range(1_000))  # returns, while the disk stands still
    assert writer.dropped == 1_000 - 64
    assert writer.queued == 65
    disk.gate.set()
    writer.flush()
    kept = range(936, 1_000) if overflow == "drop_oldest" else range(64)
    assert disk.numbers == [-1, *kept]


@pytest.mark.parametrize("overflow", DROPPING)
@pytest.mark.parametrize("threads", [8])
def test_the_dropping_policies_account_for_every_line_of_many_threads(
    start, disk, overflow, threads, scale
):
    writer = start(queue_size=64, overflow=overflow)
    each = scale(3_000, 50_000)
    workers = [
        threading.Thread(target=put, args=(writer, range(n * each, (n + 1) * each)))
        for n in range(threads)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    writer.close()
    assert len(disk.numbers) + writer.dropped == threads * each
    assert writer.dropped > 0
    for n in range(threads):
        mine = [number for number in disk.numbers if number // each == n]
        assert mine == sorted(set(mine))


def test_bytes_are_bounded_too(start, disk, monkeypatch):
    monkeypatch.setattr(writer_module, "MAX_BYTES", 100_000)
    writer = start(queue_size=1_000, overflow="drop_newest")
    hold_up(disk, writer)
    for size in (99, 100, 101, 9_999, 7, 60_000) * 20:
        writer.put(b"1" * (size - 1) + b"\n")
    assert 0 < sum(map(len, writer._queue)) <= 100_000
    assert writer.dropped > 0
    disk.gate.set()
    writer.flush()
    # All of the room is given back: as many lines fit as at first.
    disk.gate.clear()
    disk.appends = 0
    dropped = writer.dropped
    hold_up(disk, writer)
    put(writer, range(1_000))
    assert writer.dropped == dropped


@pytest.mark.parametrize("overflow", ["block", *DROPPING])
def test_a_line_larger_than_all_the_room_is_admitted_to_an_empty_queue(
    start, disk, monkeypatch, overflow
):
    monkeypatch.setattr(writer_module, "MAX_BYTES", 1_000)
    writer = start(queue_size=10, overflow=overflow)
    for _ in range(3):
        writer.put(b"7" * 4_000 + b"\n")
        writer.flush()
    assert len(disk.data) == 3 * 4_001
    assert writer.dropped == 0


@pytest.mark.parametrize("overflow", ["block", *DROPPING])
def test_a_full_queue_is_warned_of_once(start, disk, caplog, overflow):
    writer = start(queue_size=4, overflow=overflow)
    for _ in range(2):
        disk.appends = 0
        hold_up(disk, writer)
        thread = threading.Thread(target=put, args=(writer, range(20)))
        thread.start()
        wait_until(lambda: writer.queued == 5)
        disk.gate.set()
        thread.join()
        writer.flush()
    (warning,) = caplog.records
    assert warning.levelno == logging.WARNING
    assert "the queue of 4 records is full" in warning.message


def test_a_full_queue_is_warned_of_while_no_lock_is_held(start, disk):
    """For a logging handler has a lock of its own, and may put a line itself."""
    writer = start(queue_size=1, overflow="drop_newest")
    hold_up(disk, writer)
    put(writer, [0])
    handling, warning = threading.Event(), threading.Event()

    class Handler(logging.Handler):
        def emit(self, message):
            if message.msg == "another":
                handling.set()
                warning.wait()  # for the other thread, which will wait for this handler
                put(writer, [2])

    def notice(message):
        if "is full" in message.msg:
            warning.set()
        return True

    log, handler = logging.getLogger("vibe_rl"), Handler()
    log.addHandler(handler)
    log.addFilter(notice)
    try:
        thread = threading.Thread(target=log.warning, args=("another",))
        thread.start()
        handling.wait()
        put(writer, [1])
        thread.join()
    finally:
        log.removeFilter(notice)
        log.removeHandler(handler)
    assert writer.dropped == 2


def test_our_own_threads_never_wait(start, disk):
    writer = start(queue_size=4)
    hold_up(disk, writer)
    thread = BackgroundThread(lambda: put(writer, range(100)), "test")
    thread.start()
    thread.join()
    disk.gate.set()
    writer.flush()
    assert disk.numbers == [-1, *range(100)]


def test_flush_and_close_give_up_in_time(start, disk):
    writer = start()
    hold_up(disk, writer)
    put(writer, range(3))
    assert not writer.flush(timeout=0.01)
    assert not writer.flush(timeout=-1)
    assert not writer.close(timeout=0.01)
    disk.gate.set()
    assert writer.close()
    assert disk.numbers == [-1, 0, 1, 2]


def test_flush_by_many_threads_at_once(start, disk):
    writer = start(flush_interval=3600)

    def put_and_flush(number):
        put(writer, [number])
        assert writer.flush()
        assert number in disk.numbers

    threads = [threading.Thread(target=put_and_flush, args=(n,)) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(disk.numbers) == list(range(20))


def test_a_full_disk_tears_and_repeats_nothing(start, disk, caplog):
    writer = start(queue_size=200)
    disk.room = 10  # in the middle of a line
    put(writer, range(100, 150))
    for _ in range(2):
        with pytest.raises(OSError, match=r"48 records have not landed .*No space left") as caught:
            writer.flush()
        assert caught.value.errno == 28
    put(writer, range(150, 180))
    assert writer.written == 2
    assert writer.queued == 78
    disk.room = 7
    wait_until(lambda: writer.written == 4)
    disk.room = float("inf")
    wait_until(lambda: writer.queued == 0)
    assert writer.flush()
    assert disk.numbers == list(range(100, 180))
    assert "No space left" in caplog.text
    assert "can be appended to again" in caplog.text


def test_an_error_that_nobody_has_thought_of_ends_no_thread(start, disk, caplog):
    is_wrong = True

    def append(data):
        if is_wrong:
            raise TypeError("rubbish")
        return disk.append(data)

    writer = start(append)
    put(writer, range(3))
    with pytest.raises(OSError, match="3 records have not landed in the file: rubbish"):
        writer.flush()
    is_wrong = False
    wait_until(lambda: not writer.queued)
    assert writer.flush()
    assert disk.numbers == [0, 1, 2]
    assert [bool(record.exc_info) for record in caplog.records] == [True, False]


def test_what_landed_is_counted_before_anybody_is_told(start, disk):
    """So that a logging handler that raises has nothing appended twice."""
    writer = start()
    writer.close()
    writer.after_fork()  # from now on, lines are appended within put()
    counts = []

    class Handler(logging.Handler):
        def emit(self, message):
            counts.append((writer.written, writer.queued))
            raise RuntimeError("no such channel")

    handler = Handler()
    logging.getLogger("vibe_rl").addHandler(handler)
    try:
        disk.room = 0
        with pytest.raises(RuntimeError, match="no such channel"):
            put(writer, [0])
        put(writer, [1])
        disk.room = float("inf")
        with pytest.raises(RuntimeError, match="no such channel"):
            writer.flush()
        put(writer, [2])
    finally:
        logging.getLogger("vibe_rl").removeHandler(handler)
    assert counts == [(0, 1), (1, 1)]
    assert disk.numbers == [0, 1, 2]


def test_a_full_disk_is_not_tried_at_each_put(start, disk):
    writer = start(queue_size=64, overflow="drop_oldest")
    disk.room = 0
    put(writer, [0])
    wait_until(lambda: disk.failures)
    put(writer, range(20_000))
    assert disk.failures < 20


def test_close_gives_up_on_a_full_disk_and_says_what_is_lost(start, disk, monkeypatch):
    monkeypatch.setattr(writer_module, "_CLOSE_PATIENCE_S", 0.01)
    writer = start()
    disk.room = 4
    put(writer, range(10, 20))
    with pytest.raises(OSError, match="9 records have not landed"):
        writer.close()
    assert writer.close()
    with pytest.raises(OSError, match="9 records"):
        writer.flush()


def test_a_put_that_close_overtook_is_refused(start, disk):
    writer = start(queue_size=4)
    hold_up(disk, writer)
    outcomes = []

    def put_many():
        try:
            put(writer, range(100))
        except ValueError as error:
            outcomes.append(error)

    thread = threading.Thread(target=put_many)
    thread.start()
    wait_until(lambda: writer.queued == 5)
    closer = threading.Thread(target=writer.close)
    closer.start()
    disk.gate.set()
    closer.join()
    thread.join()
    assert disk.numbers == list(range(-1, len(disk.numbers) - 1))
    assert len(outcomes) == (len(disk.numbers) < 101)
    with pytest.raises(ValueError, match="closed"):
        put(writer, [7])


@pytest.mark.timeout(60)
@pytest.mark.parametrize("call", ["put", "flush"])
def test_a_close_in_a_handler_just_before_its_thread_sleeps_wakes_it(start, disk, call):
    writer = start(queue_size=2, flush_interval=60)
    wait_until(lambda: writer._asleep)
    bell = writer._bell

    class Interrupted:
        """Rings, and is interrupted: after that, nobody is left who would notify."""

        wait = staticmethod(bell.wait)

        def ring(self):
            writer._bell = bell
            bell.ring()
            disk.gate.set()  # for close() waits for the file
            writer.close()

    if call == "flush":
        put(writer, [0])
        writer._bell = Interrupted()
        assert writer.flush()
    else:
        disk.gate.clear()
        put(writer, [0])
        wait_until(lambda: disk.appends)
        put(writer, [1, 2])
        writer._bell = Interrupted()
        with pytest.raises(ValueError, match="closed while this record"):
            put(writer, [3])
    assert disk.numbers == list(range(1 if call == "flush" else 3))


class Broken:
    """A block that can't be made lines of."""

    records = 3

    def __len__(self):
        return 30

    def lines(self):
        raise ZeroDivisionError


def test_a_block_that_raises_is_counted_and_the_thread_goes_on(start, disk, caplog):
    writer = start()
    for _ in range(2):
        put(writer, [1])
        writer.put_block(Broken())
        put(writer, [2])
        writer.flush()
        writer.put_block(Broken())
        writer.flush()
    assert disk.numbers == [1, 2, 1, 2]
    assert (writer.written, writer.queued, writer.dropped) == (4, 0, 12)
    assert [record.exc_info[0] for record in caplog.records] == [ZeroDivisionError]


def test_on_append_follows_the_lines(start, disk):
    seen = []
    writer = start(on_append=lambda: seen.append(len(disk.numbers)))
    put(writer, range(5))
    writer.close()
    assert seen
    assert seen[-1] == 5


@pytest.mark.timeout(120, method="thread")  # the other method needs the signal itself
@pytest.mark.parametrize("overflow", ["block", *DROPPING])
def test_a_signal_handler_may_put_while_its_thread_does(start, disk, overflow, scale):
    writer = start(queue_size=64, overflow=overflow)
    count, handled, busy = scale(50_000, 1_000_000), 0, False

    def handle(*_):
        nonlocal handled, busy
        if not busy:  # on a busy machine, handlers would pile up on each other
            busy = True
            handled += 1
            put(writer, [-handled])
            busy = False

    before = signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, 5e-5, 5e-5)
    try:
        put(writer, range(count))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    writer.close()
    assert handled > 0
    assert len(disk.numbers) + writer.dropped == count + handled
    assert len(disk.numbers) == len(set(disk.numbers))
    assert [n for n in disk.numbers if n >= 0] == sorted(n for n in disk.numbers if n >= 0)


def test_without_a_thread_a_signal_handler_repeats_nothing_and_never_waits(start, disk):
    writer = start(queue_size=1)
    writer.close()
    writer.after_fork()
    append = disk.append

    def interrupted(data):
        done = append(data)
        if disk.appends < 3:  # as a handler would between the append and its account
            put(writer, [10 * disk.appends, 10 * disk.appends + 1])
        return done

    writer._append = interrupted
    put(writer, [0])
    assert disk.numbers == [0, 10, 11, 20, 21]
    assert writer.flush()
