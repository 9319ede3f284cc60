"""Going back to a step: `MetricsLogger(..., resume_step=N)`."""

import errno
import fcntl
import itertools
import json
import logging
import math
import os
import shutil
import signal
import stat
import sys
import time

import numpy as np
import pytest

from vibe_rl.metrics import MetricsLogger, TensorBoardBackend, isolated, locks, read_metrics
from vibe_rl.metrics.alarms import alarms_path, read_alarms
from vibe_rl.metrics.feed.cursor import Cursor
from vibe_rl.metrics.lines import Position
from vibe_rl.metrics.reading.nonfinite import first_nonfinite
from vibe_rl.metrics.supersede import supersede


@pytest.fixture
def path(tmp_path):
    return tmp_path / "metrics.jsonl"


def superseded(path):
    return read_metrics(path.with_name("metrics.superseded.jsonl"))


def log(path, steps, attempt, more=lambda step: {}, **settings):
    with MetricsLogger(path, **settings) as logger:
        for step in steps:
            logger.write({"step": step, "attempt": attempt, **more(step)})


def history(path):
    return [(record["step"], record["attempt"]) for record in read_metrics(path)]


def test_of_two_that_go_back_at_once_the_second_sees_what_the_first_has_left(path, monkeypatch):
    log(path, range(6), "old")
    lock = locks.lock

    def late(fd):  # the other has come between our opening the file and its lock
        monkeypatch.setattr(locks, "lock", lock)
        log(path, range(3, 6), "first", resume_step=2)
        return lock(fd)

    monkeypatch.setattr(locks, "lock", late)
    log(path, range(3, 5), "second", resume_step=2)
    kept = [(record["step"], record["attempt"]) for record in superseded(path)]
    assert history(path) == [*((i, "old") for i in range(3)), (3, "second"), (4, "second")]
    assert kept == [(i, attempt) for attempt in ("old", "first") for i in range(3, 6)]


class Recorder:
    """Remembers what it gets, with the ordinals of the records."""

    name = "recorder"

    def __init__(self):
        self.got = []
        self.ordinals = []
        self.restarts = []

    def log_at(self, record, step, *, time, ordinal):
        self.got.append((record.get("step"), record.get("attempt")))
        self.ordinals.append(ordinal)

    def log(self, record, step=None):
        raise AssertionError("log_at is there")

    def restart(self, step):
        self.restarts.append((step, len(self.got)))

    def flush(self):
        pass

    def close(self):
        pass


def test_records_past_the_step_make_way_and_are_kept_beside_the_file(path):
    log(path, range(1, 8), "first")
    log(path, range(5, 10), "second", resume_step=4)
    assert history(path) == [(n, "first") for n in range(1, 5)] + [
        (n, "second") for n in range(5, 10)
    ]
    assert history(path.with_name("metrics.superseded.jsonl")) == [(n, "first") for n in (5, 6, 7)]
    log(path, [3], "third", resume_step=2)
    assert history(path) == [(1, "first"), (2, "first"), (3, "third")]
    assert len(superseded(path)) == 3 + 2 + 5


def test_a_resumed_run_that_has_nothing_to_cut_leaves_the_file_alone(path):
    log(path, range(4), "first")
    inode = path.stat().st_ino
    log(path, [4], "second", resume_step=3)
    assert path.stat().st_ino == inode
    assert not path.with_name("metrics.superseded.jsonl").exists()
    log(path.with_name("new.jsonl"), [1], "first", resume_step=7)
    assert history(path.with_name("new.jsonl")) == [(1, "first")]


def test_a_record_without_a_step_shares_the_fate_of_the_one_before(path):
    with MetricsLogger(path) as logger:
        for record in ({"note": "a"}, {"step": 1}, {"note": "b"}, {"step": 2}, {"note": "c"}):
            logger.write(record)
    log(path, [2], "second", resume_step=1)
    kept = [record.get("note", record.get("step")) for record in read_metrics(path)]
    assert kept == ["a", 1, "b", 2]
    assert [record.get("note", 2) for record in superseded(path)] == [2, "c"]


def test_steps_out_of_order_and_of_any_kind_are_sorted_out(path):
    with MetricsLogger(path) as logger:
        for step in (1, 9, 2, 7.5, "x", np.float32(3), 8):
            logger.write({"step": step, "wall_time": 0})
    log(path, [], "second", resume_step=3)
    assert [record["step"] for record in read_metrics(path)] == [1, 2, 3]
    assert [record["step"] for record in superseded(path)] == [9, 7.5, "x", 8]


def test_every_line_stays_what_it_was_byte_by_byte(path):
    lines = [b'{ "step":1,  "x": 1.50 }\n', b'{"step": 3, "\xc3\xa9": null}\n', b'{"step": 2}\n']
    path.write_bytes(b"".join(lines) + b'{"step": 4}')  # whole, but for its newline
    MetricsLogger(path, resume_step=2).close()
    assert path.read_bytes() == lines[0] + lines[2]
    kept = path.with_name("metrics.superseded.jsonl").read_bytes()
    assert kept == lines[1] + b'{"step": 4}\n'


def test_a_torn_line_is_kept_beside_the_file_as_ever(path):
    path.write_bytes(b'{"step": 1}\n{"step": 2}\n{"ste')
    log(path, [2], "second", resume_step=1)
    assert [record["step"] for record in read_metrics(path, strict=True)] == [1, 2]
    assert path.with_name("metrics.jsonl.torn").read_bytes() == b'{"ste\n'


@pytest.mark.parametrize("first", [range(1, 7), [5, 1, 6, 2, 3, 7, 4]])
@pytest.mark.parametrize("delivered", [0, 2, 5])
def test_a_backend_gets_every_record_of_the_one_history(path, first, delivered):
    """Wherever the backend was when the run went back."""
    first = list(first)
    log(path, first[:delivered], "first", backends=[Recorder()])
    log(path, first[delivered:], "first")
    backend = Recorder()
    log(path, [4, 5], "second", backends=[backend], resume_step=3)

    kept = [step for step in first[delivered:] if step <= 3]
    assert backend.got == [(step, "first") for step in kept] + [(4, "second"), (5, "second")]
    assert backend.restarts == [(3, 0)]
    # Numbers that the backend has had before would draw two records at one place.
    assert min(backend.ordinals) >= delivered
    assert len(set(backend.ordinals)) == len(backend.ordinals)


def test_ordinals_are_never_used_twice(path):
    used = set()
    for attempt in range(4):
        backend = Recorder()
        log(path, range(2, 6), attempt, backends=[backend], resume_step=1)
        assert len(backend.ordinals) == 4
        assert not used & set(backend.ordinals)
        used |= set(backend.ordinals)


def test_ordinals_are_never_used_twice_by_a_run_that_goes_back_further_than_its_last_start(path):
    used = set()
    for attempt, (first, last) in enumerate([(0, 9), (6, 9), (3, 9), (8, 9)]):
        backend = Recorder()
        backend.name = f"new to the file {attempt}"
        steps = range(first, last + 1)
        log(path, steps, attempt, backends=[backend], resume_step=first - 1 if first else None)
        assert len(backend.ordinals) == len(steps)
        assert not used & set(backend.ordinals)
        used |= set(backend.ordinals)


def test_the_file_stays_a_link_and_its_mode_what_it_was(path):
    scratch = path.parent / "scratch"
    scratch.mkdir()
    path.symlink_to(scratch / "run.jsonl")
    log(path, range(5), "first")
    path.chmod(0o640)
    log(path, [2], "second", resume_step=1)
    assert path.is_symlink()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert history(path) == [(0, "first"), (1, "first"), (2, "second")]
    assert len(list(scratch.iterdir())) == 1


def test_a_file_that_is_emptied_keeps_its_backends(path, caplog):
    backend = Recorder()
    log(path, range(5), "first", backends=[Recorder()])
    log(path, range(5), "second", backends=[backend], resume_step=0)
    assert backend.got == [(n, "second") for n in range(5)]
    assert history(path) == [(0, "first"), *backend.got]
    assert [r for r in caplog.records if r.levelno >= logging.WARNING] == []


def test_a_backend_is_told_once(path):
    log(path, range(5), "first", backends=[Recorder()])
    told, later = Recorder(), Recorder()
    log(path, [2], "second", backends=[told], resume_step=1)
    log(path, [3], "third", backends=[later])
    assert told.restarts == [(1, 0)]
    assert later.restarts == []


def test_a_backend_that_could_not_be_told_is_not_told_later(path, caplog):
    """For it would drop what it has got meanwhile."""

    class Failing(Recorder):
        def restart(self, step):
            super().restart(step)
            raise OSError("the disk is full")

    log(path, range(5), "first", backends=[Recorder()])
    failing, later = Failing(), Recorder()
    log(path, [2, 3], "second", backends=[failing], resume_step=1)
    log(path, [4], "third", backends=[later])
    assert failing.restarts == [(1, 0)]
    assert failing.got == [(2, "second"), (3, "second")]
    assert later.restarts == []
    assert "the disk is full" in caplog.text


def test_what_a_backend_was_told_survives_a_kill_before_the_first_record(path):
    log(path, range(5), 1, backends=[TensorBoardBackend(log_dir=path.parent)])
    with MetricsLogger(path, [TensorBoardBackend(log_dir=path.parent)], resume_step=2):
        (cursor,) = path.parent.glob("*.cursor.json")
        while "restart" in cursor.read_text():
            time.sleep(0.01)
        left = shutil.copytree(path.parent, path.parent / "left")  # as a kill now would leave it
    log(left / path.name, [3], 2, backends=[TensorBoardBackend(log_dir=left)], resume_step=2)
    assert scalars(left, "attempt") == [(0, 1.0), (1, 1.0), (2, 1.0), (3, 2.0)]


def test_the_times_of_what_stays_are_those_of_who_wrote_it(path):
    log(path, [1, 9, 2], "first")
    log(path, [3, 8], "second")
    opened = [n["time"] for n in notes(path) if n["event"] == "open"]
    backend = Recorder()
    backend.times = []
    backend.log_at = lambda record, step, *, time, ordinal: backend.times.append(
        time - record["wall_time"]
    )
    cursor = Cursor(path, "recorder")
    cursor.save(Position(0, 0), None)
    cursor.close()
    log(path, [4], "third", backends=[backend], resume_step=3)
    np.testing.assert_allclose(backend.times[:3], [opened[0], opened[0], opened[1]], atol=1e-3)


def notes(path):
    text = path.with_name("metrics.writers.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def test_what_was_warned_of_makes_way_with_its_records(path, caplog):
    def nan_at(bad):
        return lambda step: {"loss": math.nan if step == bad else 1.0, "early": math.inf}

    log(path, range(20), "first", nan_at(8))
    log(path, range(6, 20), "second", nan_at(None), resume_step=5)
    assert [alarm.message for alarm in read_alarms(path)] == ["early is inf at step 0"]
    beside = read_alarms(path.with_name("metrics.superseded.jsonl"))
    assert [alarm.message for alarm in beside] == ["loss is nan at step 8"]
    caplog.clear()
    log(path, range(11, 20), "third", nan_at(15), resume_step=10)
    assert [text.partition(";")[0] for text in caplog.messages] == ["loss is nan at step 15"]
    alarms = ["early is inf at step 0", "loss is nan at step 15"]
    assert [alarm.message for alarm in read_alarms(path)] == alarms
    assert '"gone"' not in alarms_path(path).read_text()


def test_what_was_warned_of_in_a_record_without_a_step_shares_its_fate(path):
    def check(record):
        return record.get("found")

    with MetricsLogger(path, alert=check) as logger:
        logger.write({"kept": math.nan, "found": "before all steps"})
        for step in (1, 2, "x"):
            logger.write({"step": step, "found": f"at {step}"})
            logger.write({f"after {step}": math.nan, "found": f"after {step}"})
    MetricsLogger(path, resume_step=1).close()
    kept = ["before all steps", "at 1", "after 1"]
    assert [record.get("found") for record in read_metrics(path)] == kept
    alarms = read_alarms(path)
    assert [alarm.message for alarm in alarms if alarm.metric is None] == kept
    assert [alarm.metric for alarm in alarms if alarm.metric] == ["kept", "after 1"]
    assert len(read_alarms(path.with_name("metrics.superseded.jsonl"))) == 4 + 2


def test_an_alarm_stays_if_what_stays_is_not_finite_either(path):
    with MetricsLogger(path) as logger:
        for step in (1, 9, 2):
            logger.write({"step": step, "loss": math.nan if step > 1 else 1.0})
    MetricsLogger(path, resume_step=4).close()
    (alarm,) = read_alarms(path)
    assert (alarm.message, alarm.step) == ("loss is not finite at step 2", 2)


def test_an_alarm_that_a_kill_has_left_is_swept_out_and_others_stay_as_they_are(path):
    """It says in which file it holds no more; a copy of the run is another one."""
    log(path, range(3), "first")
    ours, others = b'{"message":"a","metric":"a","step":9,"time":0', b'{"of":"a later version"}\n\n'
    gone = b'%b,"after":null,"gone":%d}\n' % (ours, path.stat().st_ino)
    alarms_path(path).write_bytes(gone + others + ours + b"}\n")
    assert len(read_alarms(path)) == 1
    MetricsLogger(path, resume_step=2).close()
    assert alarms_path(path).read_bytes() == others + ours + b"}\n"
    MetricsLogger(path, resume_step=1).close()
    assert alarms_path(path).read_bytes() == others
    assert [a.step for a in read_alarms(path.with_name("metrics.superseded.jsonl"))] == [9]


def test_a_file_that_another_logger_has_open_is_left_alone(path):
    with MetricsLogger(path) as logger:
        for step in range(3):
            logger.write({"step": step})
        logger.flush()
        with pytest.raises(OSError, match="another logger has the file open") as caught:
            MetricsLogger(path, resume_step=1)
        assert caught.value.errno == errno.EBUSY
        MetricsLogger(path, resume_step=2).close()  # nothing has to make way
    assert len(read_metrics(path)) == 3


def test_a_feed_under_way_is_not_cut_short(path):
    log(path, range(3), "first", backends=[Recorder()])
    cursor = Cursor(path, "recorder")
    with pytest.raises(OSError, match="a feed delivers from the file"):
        MetricsLogger(path, resume_step=1)
    cursor.close()
    assert len(read_metrics(path)) == 3
    assert not list(path.parent.glob(".*"))
    MetricsLogger(path, resume_step=1).close()
    assert len(read_metrics(path)) == 2


def test_a_file_of_a_longer_name_keeps_its_cursors(path):
    other = path.with_name("metrics.eval.jsonl")
    for each in (path, other):
        log(each, range(5), "first", backends=[Recorder()])
    (cursor,) = path.parent.glob("metrics.eval.*.cursor.json")
    before = cursor.read_bytes()
    with MetricsLogger(other, [Recorder()]):
        MetricsLogger(path, resume_step=1).close()
    assert len(read_metrics(path)) == 2
    assert cursor.read_bytes() == before


@pytest.mark.parametrize("value", [-1, 1.5, "1", True])
def test_a_step_that_is_none_is_refused(path, value):
    with pytest.raises(ValueError, match=r"resume_step is a number of steps, at least 0, not "):
        MetricsLogger(path, resume_step=value)
    assert not path.exists()


def scalars(log_dir, tag):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(log_dir), size_guidance={"scalars": 0})
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(tag)]


on_a_thread_and_isolated = pytest.mark.parametrize(
    "wrap", [TensorBoardBackend, lambda **kw: isolated(TensorBoardBackend, **kw)]
)


@on_a_thread_and_isolated
def test_tensorboard_shows_one_curve(path, wrap):
    log(path, range(10), 1, backends=[wrap(log_dir=path.parent)])
    log(path, range(5, 8), 2, backends=[wrap(log_dir=path.parent)], resume_step=4)
    expected = [(step, 1.0 if step < 5 else 2.0) for step in range(8)]
    assert scalars(path.parent, "attempt") == expected


def test_tensorboard_shows_one_curve_for_each_seed(path):
    for attempt, first in ((1, 0), (2, 5)):
        backend = TensorBoardBackend(log_dir=path.parent, split_by="seed")
        with MetricsLogger(path, [backend], resume_step=first - 1 if first else None) as logger:
            for step in range(first, 10 - attempt):
                logger.write({"step": step, "seed": 3, "attempt": attempt})
    expected = [(step, 1.0 if step < 5 else 2.0) for step in range(8)]
    assert scalars(path.parent / "seed-3", "attempt") == expected


@on_a_thread_and_isolated
@pytest.mark.parametrize("field", ["phase", "größe", "x" * 90])
def test_a_curve_that_does_not_go_on_loses_what_made_way_too(path, wrap, field):
    def phase(step):
        return {field: "warm" if step < 6 else "main"}

    def backend():
        return wrap(log_dir=path.parent, split_by=field)

    log(path, range(10), 1, phase, backends=[backend()])
    log(path, [10], 1, backends=[backend()])  # and these are nobody's part
    log(path, range(4, 6), 2, phase, backends=[backend()], resume_step=3)
    curves = [scalars(each, "attempt") for each in path.parent.iterdir() if each.is_dir()]
    warm = [(step, 1.0 if step < 4 else 2.0) for step in range(6)]
    assert sorted([*curves, scalars(path.parent, "attempt")]) == [[], [], warm]


@on_a_thread_and_isolated
def test_a_part_loses_what_made_way_though_a_kill_comes_before_its_first_record(path, wrap):
    def seed(step):
        return {"seed": 3}

    log(path, range(10), 1, seed, backends=[wrap(log_dir=path.parent, split_by="seed")])
    backend = wrap(log_dir=path.parent, split_by="seed")
    with MetricsLogger(path, [backend], resume_step=4):
        (cursor,) = path.parent.glob("*.cursor.json")
        while "restart" in cursor.read_text():
            time.sleep(0.01)
        left = shutil.copytree(path.parent, path.parent / "left")  # as a kill now would leave it
    backend = wrap(log_dir=left, split_by="seed")
    log(left / path.name, range(5, 8), 2, seed, backends=[backend], resume_step=4)
    expected = [(step, 1.0 if step < 5 else 2.0) for step in range(8)]
    assert scalars(left / "seed-3", "attempt") == expected


def test_parts_that_go_on_in_the_same_process_are_told_once(tmp_path):
    backend = TensorBoardBackend(tmp_path, split_by="seed")
    for attempt in (1, 2):
        for step in range(4):
            backend.log({"seed": 3, "attempt": attempt}, step)
        backend.flush()
        backend.restart(1)
    backend.log({"seed": 3, "attempt": 3}, 2)
    backend.close()
    assert len(list((tmp_path / "seed-3").iterdir())) == 1
    assert scalars(tmp_path / "seed-3", "attempt")[-1] == (2, 3.0)


def supersede_killed(path, step, moment):
    """Go back to a step in a forked child that is killed; False if it was through before."""
    pid = os.fork()
    if pid == 0:
        try:
            calls = itertools.count(1)

            def kill(event, args=()):
                if event in ("open", "os.rename", "os.pwrite") and next(calls) == moment:
                    os.kill(os.getpid(), signal.SIGKILL)

            def pwrite(*args, pwrite=os.pwrite):
                kill("os.pwrite")
                return pwrite(*args)

            os.pwrite = pwrite
            sys.addaudithook(kill)
            supersede(path, step)
        finally:
            os._exit(0)
    return os.waitpid(pid, 0)[1] == signal.SIGKILL


class Kept(Recorder):
    """What a service has: records past a step are dropped when the run goes back to it."""

    def __init__(self, name):
        super().__init__()
        self.name = name

    def restart(self, step):
        self.got[:] = [each for each in self.got if each[0] <= step]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning", "ignore:.*fork.*:RuntimeWarning")
@pytest.mark.parametrize("settings", [{"resume_step": 4}, {"resume_step": 3}, {}])
def test_killed_at_any_moment_it_loses_nothing_whoever_opens_it_next(tmp_path, settings):
    first = [9, 1, 7, 2, 6, 3, 8, 4, 5]
    to = settings.get("resume_step", 9)
    was_killed, moment = True, 0

    def diverges(step):
        return {f"loss{step}": math.nan} if step != 4 else {}

    while was_killed:
        moment += 1
        path = tmp_path / str(moment) / "metrics.jsonl"
        services = [Kept(str(i)) for i in range(4)]  # each of them has had less than the next
        for k in range(4):
            steps = first[3 * k - 3 : 3 * k] if k else []
            log(path, steps, "first", diverges, backends=services[k:])
        was_killed = supersede_killed(path, 4, moment)
        found = history(path) + history(path.with_name("metrics.superseded.jsonl"))
        assert set(found) == {(step, "first") for step in first}
        assert {alarm.metric for alarm in read_alarms(path)} == set(first_nonfinite(path))
        went_back = (9, "first") not in history(path)
        last = min(to, 4) if went_back else to
        log(path, [5, 6], "second", backends=services, **settings)
        expected = [
            *((step, "first") for step in first if step <= last),
            *((step, "second") for step in (5, 6)),
        ]
        assert history(path) == expected
        for service in services:
            assert set(service.got) == set(expected)
            assert service.got[-2:] == expected[-2:]
        assert {alarm.metric for alarm in read_alarms(path)} == set(first_nonfinite(path))
    assert went_back
    assert moment > 20
    assert not list(path.parent.glob(".*"))


def test_without_locks_the_error_says_so(path, monkeypatch):
    log(path, range(3), "first")

    def flock(fd, how):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(OSError, match=r"files can't be locked here \(No locks available\)"):
        MetricsLogger(path, resume_step=1)
    assert len(read_metrics(path)) == 3
