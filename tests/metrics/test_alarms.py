"""Warnings of numbers that aren't finite, and of what a user's own check finds."""

import logging
import math
import threading

import numpy as np
import pytest

from vibe_rl.metrics import MetricsLogger, read_metrics
from vibe_rl.metrics.alarms import NonFiniteAlarm, alarms_path, read_alarms
from vibe_rl.metrics.jsonl import encode
from vibe_rl.metrics.reading.nonfinite import NonFinite, first_nonfinite, marked_lines


@pytest.fixture
def warnings(caplog):
    caplog.set_level(logging.WARNING, "vibe_rl")
    return lambda: [record.getMessage().partition(";")[0] for record in caplog.records]


def test_the_first_nonfinite_value_of_each_metric_is_warned_of_once(tmp_path, warnings):
    path = tmp_path / "metrics.jsonl"
    with MetricsLogger(path) as logger:
        for step in range(300):
            logger.write({"step": step, "loss": 1.0 if step < 100 else math.nan, "n": None})
        logger.flush()
        assert warnings() == ["loss is nan at step 100"]
        logger.write({"step": 300, "loss": math.inf, "eval": {"return": -math.inf}})
        logger.write({"q": [1.0, math.inf]})
        logger.write_batch({"step": range(2), "entropy": np.array([1.0, math.nan])})
    messages = [
        *("loss is nan at step 100", "eval/return is -inf at step 300", "q is inf"),
        "entropy is nan at step 1",
    ]
    assert warnings() == messages
    alarms = read_alarms(path)
    assert [alarm.message for alarm in alarms] == messages
    assert (alarms[0].metric, alarms[0].step) == ("loss", 100)


def test_a_resumed_run_warns_of_no_metric_twice(tmp_path, warnings):
    path = tmp_path / "metrics.jsonl"
    for step in range(3):
        with MetricsLogger(path) as logger:
            logger.write({"step": step, "loss": math.nan, **({"late": math.inf} if step else {})})
    messages = ["loss is nan at step 0", "late is inf at step 1"]
    assert warnings() == [alarm.message for alarm in read_alarms(path)] == messages
    path.unlink()  # and begun anew: what was noted is of another file
    with MetricsLogger(path) as logger:
        logger.write({"step": 9, "loss": math.nan})
    assert warnings() == [*messages, "loss is nan at step 9"]


@pytest.mark.parametrize(
    "wrong", [{"time": 1e308}, {"time": "x"}, {"time": None}, {"message": 1}, {"metric": [1]}]
)
def test_what_is_no_alarm_is_passed_over(tmp_path, warnings, wrong):
    path = tmp_path / "metrics.jsonl"
    noted = {"message": "loss is nan", "metric": "loss", "step": None, "time": 1.5, "after": None}
    alarms_path(path).write_bytes(encode(noted | wrong) + encode(noted))
    assert [alarm.time for alarm in read_alarms(path)] == [1.5]
    path.write_bytes(b"{}\n")
    with MetricsLogger(path) as logger:
        logger.write({"loss": math.nan})
    assert warnings() == []


def test_the_caller_is_not_the_one_who_warns(tmp_path):
    threads = set()

    class Notes(logging.Handler):
        def emit(self, record):
            threads.add(threading.current_thread())

    handler = Notes()
    logging.getLogger("vibe_rl").addHandler(handler)
    try:
        with MetricsLogger(tmp_path / "metrics.jsonl", alert=lambda record: "odd") as logger:
            logger.write({"loss": math.nan})
            logger.flush()
    finally:
        logging.getLogger("vibe_rl").removeHandler(handler)
    assert len(threads) == 2
    assert threading.current_thread() not in threads


def test_a_quiet_run_has_no_alarms_and_no_file_of_them(tmp_path, warnings):
    path = tmp_path / "metrics.jsonl"
    with MetricsLogger(path) as logger:
        logger.write({"text": '"_nonfinite":{"loss":"nan"}', "in": {"_nonfinite": {"a": "nan"}}})
        logger.write({"loss": None, "null": [None]})
    assert warnings() == []
    assert read_alarms(path) == []
    assert not alarms_path(path).exists()
    assert first_nonfinite(path) == {}


def test_a_disk_that_takes_lines_in_parts_brings_no_second_warning(tmp_path, warnings):
    class Halves:
        path = tmp_path / "metrics.jsonl"
        start_byte = 0

        def append(self, data):
            return (len(data) + 1) // 2

    alarm = NonFiniteAlarm(Halves())
    rest = memoryview(b"".join(encode({"step": n, "a": math.nan}) for n in range(4)))
    while rest:
        rest = rest[alarm.append(rest) :]
    assert warnings() == ["a is nan at step 0"]


def test_a_users_check_sees_every_record_and_speaks_once(tmp_path, warnings):
    path = tmp_path / "metrics.jsonl"
    seen = []

    def check(record):
        seen.append(record)
        return "the return has collapsed" if record["return"] < 5 else None

    with MetricsLogger(path, alert=check) as logger:
        for step in range(10):
            logger.write({"step": step, "return": 10 - step})
    assert seen == read_metrics(path)
    assert warnings() == ["alert: the return has collapsed (step 6)"]
    (alarm,) = read_alarms(path)
    assert (alarm.message, alarm.metric, alarm.step) == ("the return has collapsed", None, 6)


def test_a_check_that_breaks_harms_nobody(tmp_path, caplog):
    path = tmp_path / "metrics.jsonl"
    with MetricsLogger(path, alert=lambda record: record["missing"]) as logger:
        logger.write({"step": 0})
        logger.write({"step": 1, "missing": None})
    assert len(read_metrics(path)) == 2
    assert "KeyError" in caplog.text or "missing" in caplog.text
    with pytest.raises(TypeError, match="alert is a function of a record, not 3"):
        MetricsLogger(path, alert=3)


def test_a_check_goes_on_after_records_that_it_breaks_at(tmp_path, caplog):
    """However many in a row: it isn't a service that is down, and comes back."""
    seen = []

    def check(record):
        seen.append(record["step"])
        return None if record["loss"] < 5 else "the loss explodes"

    with MetricsLogger(tmp_path / "metrics.jsonl", alert=check) as logger:
        for step in range(5):
            logger.write({"step": step, "return": 1.0})
        logger.write({"step": 5, "loss": 9.0})
        assert logger.flush()
        assert logger.stats.backends["alert"].behind == 0
    assert seen == list(range(6))
    assert [alarm.step for alarm in read_alarms(tmp_path / "metrics.jsonl")] == [5]
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [record.getMessage() for record in errors] == [
        "alert raised KeyError at step 0; such records are passed over"
    ]


def test_first_nonfinite_finds_and_counts_in_the_whole_file(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with MetricsLogger(path) as logger:
        for step in range(50):
            logger.write({"step": 10 * step, "loss": math.inf if step in (20, 30) else 0.0})
        logger.write({"grad": {"norm": [0.5, math.nan]}})
    with path.open("ab") as file:
        file.write(b'{"_nonfinite":{"late":"nan"},"late":null,"step":7}\n')
        file.write(b'{"step":\0\0,"_nonfinite":{"spoilt":"nan"}}\n{"_nonfinite":{"x":"nan"}')
    found = first_nonfinite(path)
    assert list(found) == ["loss", "grad/norm", "late"]
    assert found["loss"] == NonFinite(200, 2)
    assert found["grad/norm"] == NonFinite(None)
    assert found["late"] == NonFinite(7, 1)


def test_marks_are_found_line_by_line():
    lines = [{"a": 1.0}, {"a": math.nan, "b": [math.inf]}, {"c": {"_nonfinite": -math.inf}}]
    text = b"".join(map(encode, lines))
    found = [(text[a:b], [name for name, _ in values]) for a, b, values in marked_lines(text)]
    assert [names for _, names in found] == [["a", "b"], ["c/_nonfinite"]]
    assert [line + b"\n" for line, _ in found] == list(map(encode, lines[1:]))
