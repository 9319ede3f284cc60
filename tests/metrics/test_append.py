"""Opening a file for appending: what is repaired, what is left alone, and who wrote it."""

import fcntl
import json
import os
import socket
import threading

import pytest

from vibe_rl.metrics import MetricsLogger, read_metrics
from vibe_rl.metrics.append import MetricsFile, read_writers, writers_path


@pytest.fixture
def path(tmp_path):
    return tmp_path / "metrics.jsonl"


def kept(path):
    return path.with_name("metrics.jsonl.torn")


def append(path, *lines):
    """Append through a logger's file, as a later run would."""
    file = MetricsFile(path)
    for line in lines:
        file.append(memoryview(line))
    file.close("closed")
    return file


@pytest.mark.parametrize(
    "torn", [b"{", b'{"b":1', b'{"b":"\xce', b"\x00" * 3_000_000, b"[1]", b" "]
)
def test_a_torn_last_line_is_moved_beside_the_file(path, torn, caplog):
    path.write_bytes(b'{"a":1}\n' + torn)
    append(path, b'{"c":1}\n')
    assert path.read_bytes() == b'{"a":1}\n{"c":1}\n'
    assert kept(path).read_bytes() == torn + b"\n"
    assert f"its {len(torn)} bytes were moved to metrics.jsonl.torn" in caplog.text


def test_what_is_cut_is_added_to_what_was(path):
    for torn in (b'{"a":', b'{"b":'):
        path.write_bytes(torn)
        append(path)
    assert kept(path).read_bytes() == b'{"a":\n{"b":\n'
    assert path.read_bytes() == b""


@pytest.mark.parametrize("whole", [b"", b'{"a":1}\n', b'{"a":1}\nrubbish\n', b"\n", b"\n\n"])
def test_whole_lines_are_never_touched(path, whole, caplog):
    path.write_bytes(whole)
    append(path, b'{"c":1}\n')
    assert path.read_bytes() == whole + b'{"c":1}\n'
    assert not kept(path).exists()
    assert not caplog.text


def test_a_whole_last_line_only_lacks_its_newline(path, caplog):
    path.write_bytes(b'{"a":1}\n{"b":1}')
    append(path, b'{"c":1}\n')
    assert path.read_bytes() == b'{"a":1}\n{"b":1}\n{"c":1}\n'
    assert not kept(path).exists()
    assert not caplog.text


def test_a_line_that_only_lacks_its_newline_is_counted_as_a_line(path):
    path.write_bytes(b'{"a":1}\n{"b":1}')
    file = MetricsFile(path)
    assert (file.start_byte, file.start_ordinal) == (16, 2)
    file.close("closed")
    assert path.read_bytes() == b'{"a":1}\n{"b":1}\n'


def test_nothing_is_cut_while_another_logger_is_alive(path):
    alive = MetricsFile(path)
    alive.append(memoryview(b'{"a":1}\n{"b":'))  # an append under way looks like this
    append(path, b'{"c":1}\n')
    assert path.read_bytes() == b'{"a":1}\n{"b":\n{"c":1}\n'
    assert not kept(path).exists()
    alive.close("closed")
    append(path)
    assert path.read_bytes() == b'{"a":1}\n{"b":\n{"c":1}\n'


def test_nothing_is_cut_where_locks_do_not_work(path, monkeypatch):
    def no_locks(fd, how):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    path.write_bytes(b'{"a":')
    append(path, b'{"c":1}\n')
    assert path.read_bytes() == b'{"a":\n{"c":1}\n'


def test_an_opener_waits_for_another_ones_repair(path):
    with path.open("w") as repairing:
        fcntl.flock(repairing, fcntl.LOCK_EX)
        opener = threading.Thread(target=append, args=(path, b'{"c":1}\n'))
        opener.start()
        opener.join(0.1)
        assert opener.is_alive()
    opener.join()
    assert path.read_bytes() == b'{"c":1}\n'


def test_an_opener_that_waited_in_vain_cuts_nothing(path, monkeypatch):
    monkeypatch.setattr("vibe_rl.metrics.locks._PATIENCE_S", 0.01)
    path.write_bytes(b'{"a":')
    with path.open("r") as repairing:
        fcntl.flock(repairing, fcntl.LOCK_EX)
        append(path, b'{"c":1}\n')
    assert path.read_bytes() == b'{"a":\n{"c":1}\n'


def test_an_opener_that_waited_in_vain_takes_the_lock_once_it_is_free(path, monkeypatch):
    monkeypatch.setattr("vibe_rl.metrics.locks._PATIENCE_S", 0.01)
    with path.open("w") as repairing:
        fcntl.flock(repairing, fcntl.LOCK_EX)
        file = MetricsFile(path)
    file.append(memoryview(b'{"a":'))  # an append under way
    append(path, b'{"c":1}\n')
    file.close("closed")
    assert path.read_bytes() == b'{"a":\n{"c":1}\n'
    assert not kept(path).exists()


def test_a_file_that_took_the_name_while_an_opener_waited_is_the_one_opened(path):
    path.write_bytes(b'{"old":1}\n')
    with path.open() as repairing:
        fcntl.flock(repairing, fcntl.LOCK_EX)
        opener = threading.Thread(target=append, args=(path, b'{"c":1}\n'))
        opener.start()
        opener.join(0.1)
        path.rename(path.with_name("moved"))
        path.write_bytes(b'{"new":1}\n{"new":2}\n')
    opener.join()
    assert path.read_bytes() == b'{"new":1}\n{"new":2}\n{"c":1}\n'
    assert [note["ordinal"] for note in read_writers(path) if note["event"] == "open"] == [2]


@pytest.mark.parametrize(
    "wrong",
    [
        *({"superseded": value} for value in ("x", None, [1], -1, 1.5, 2**63)),
        *({"time": value} for value in ("x", None, True, -1, 1e308)),
    ],
)
def test_notes_that_make_no_sense_are_passed_over(path, wrong):
    note = {"event": "open", "time": 1.5, "pid": 1, "byte": 0, "ordinal": 7}
    writers_path(path).write_text(json.dumps(note | wrong) + "\n")
    assert append(path, b'{"a":1}\n').start_ordinal == 0


def test_the_lock_is_held_until_close(path):
    file = MetricsFile(path)
    with path.open() as other:
        fcntl.flock(other, fcntl.LOCK_SH)  # shared: several may append
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(other, fcntl.LOCK_UN)
        file.close("closed")
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


WRITER = """
import sys, threading
from vibe_rl.metrics import MetricsLogger
stop = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
with MetricsLogger("metrics.jsonl", flush_interval=0.0005) as logger:
    print("open", flush=True)
    count = 0
    while not stop.is_set():
        logger.write({"n": count, "text": "some text" * (count % 50)})
        count += 1
        if count % 20 == 0:
            stop.wait(0.0005)
print(count)
"""


@pytest.mark.timeout(600)
def test_opening_and_reading_a_file_while_it_grows_costs_no_record(path, python, scale):
    process = python(WRITER)
    assert process.stdout.readline() == "open\n"
    for n in range(scale(50, 1_000)):
        with MetricsLogger(path) as logger:
            logger.write({"opened": n})
        read_metrics(path, strict=True) if n % 10 == 0 else None
    out, err = process.communicate()
    records = read_metrics(path, strict=True)
    assert [r["n"] for r in records if "n" in r] == list(range(int(out)))
    assert [r["opened"] for r in records if "opened" in r] == list(range(scale(50, 1_000)))
    assert err == ""
    assert not kept(path).exists()


def test_who_wrote_is_noted_beside_the_file(path):
    one = append(path, b'{"a":1}\n{"a":2}\n')
    two = MetricsFile(path)
    two.append(memoryview(b'{"a":3}\n'))
    three = MetricsFile(path)
    two.close("KeyError")
    three.close("exit")
    four = append(path)
    notes = read_writers(path)
    opens = [note for note in notes if note["event"] == "open"]
    assert [note["time"] for note in opens] == [f.start_time for f in (one, two, three, four)]
    assert [note["byte"] for note in opens] == [0, 16, 24, 24]
    assert [note["ordinal"] for note in opens] == [0, 2, 3, 3]
    assert {(note["host"], note["pid"]) for note in opens} == {(socket.gethostname(), os.getpid())}
    closes = [(note["id"], note["how"]) for note in notes if note["event"] == "close"]
    ids = [note["id"] for note in opens]
    assert closes == list(zip(ids, ("closed", "KeyError", "exit", "closed"), strict=True))
    assert len(set(ids)) == 4


def test_close_says_how_the_logger_ended(path, run_python):
    MetricsLogger(path).close()
    with pytest.raises(KeyError), MetricsLogger(path):
        raise KeyError
    script = "from vibe_rl.metrics import MetricsLogger\nlogger = MetricsLogger('metrics.jsonl')\n"
    run_python(script)
    run_python(f"{script}import os; os._exit(0)")
    events = [(note["event"], note.get("how")) for note in read_writers(path)]
    once = [("open", None)]
    assert events == [
        *(*once, ("close", "closed"), *once, ("close", "KeyError"), *once, ("close", "exit"), *once)
    ]


def test_closing_again_notes_nothing(path):
    file = append(path)
    file.close("again")
    assert [note["event"] for note in read_writers(path)] == ["open", "close"]


@pytest.mark.parametrize(
    "rubbish",
    [
        *(b"", b"{", b"\x00\n", b"[]\n3\n", b'{"event":"open"}\n', b'{"event":["open"]}\n'),
        b'{"event":"open","time":1.5,"pid":1,"byte":4,"ordinal":-1}\n',
        b'{"event":"open","time":1.5,"pid":1,"byte":true,"ordinal":1}\n',
        b'{"event":"open","time":1.5,"pid":1,"byte":4,"ordinal":18446744073709551615}\n',
        b'{"event":"open","time":1.5,"pid":1,"byte":4444,"ordinal":4}\n',
        b'{"event":"close","time":"now","byte":4}\n',
        b'{"event":"close","time":1.5,"byte":4,"ordinal":"x"}\n',
        b'{"event":"open","time":1.5,"pid":1,"byte":4,"ordinal":0}',
        b'{"a":' + b"[" * 2_000,
    ],
)
def test_rubbish_among_the_notes_is_passed_over(path, rubbish):
    path.write_bytes(b'{"a":1}\n{"a":2}\n')
    writers_path(path).write_bytes(rubbish)
    file = append(path, b'{"a":3}\n')
    assert (file.start_byte, file.start_ordinal) == (16, 2)
    assert append(path).start_ordinal == 3
    lines = writers_path(path).read_bytes().removeprefix(rubbish).splitlines()
    assert [json.loads(line)["event"] for line in lines if line] == ["open", "close"] * 2


def test_lines_are_counted_on_from_the_last_note(path):
    append(path, b'{"a":1}\n' * 1_000)
    append(path, b'{"a":1}\n' * 10)
    crashed = MetricsFile(path)  # notes its opening, and never its end
    crashed.append(memoryview(b'{"a":1}\n\n{"a":'))
    os.close(crashed._fd)
    # Shows that what was counted once is not read again.
    path.write_bytes(path.read_bytes().replace(b"\n", b" ", 500))
    file = append(path)
    assert (file.start_byte, file.start_ordinal) == (8 * 1_011 + 1, 1_012)


def test_a_truncated_file_is_counted_anew(path):
    append(path, b'{"a":1}\n' * 100)
    append(path)
    os.truncate(path, 16)
    assert append(path).start_ordinal == 2


def test_files_are_made_with_the_users_umask(path):
    before = os.umask(0o027)
    try:
        append(path)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o640
    assert writers_path(path).stat().st_mode & 0o777 == 0o640
