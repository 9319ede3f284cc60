import os
import threading
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vibe_rl.metrics import MetricsLogger, read_metrics
from vibe_rl.metrics.batch import cut, host_columns

RNG = np.random.default_rng(0)
SPECIAL = [0.42, 0.1, float("nan"), float("inf"), float("-inf"), -0.0, 1e30, 3.0]


def lines_of_rows(tmp_path, rows):
    with MetricsLogger(tmp_path / "rows.jsonl") as logger:
        for row in rows:
            logger.write(row)
    return (tmp_path / "rows.jsonl").read_bytes()


def lines_of_batch(tmp_path, columns):
    with MetricsLogger(tmp_path / "batch.jsonl") as logger:
        logger.write_batch(columns)
    return (tmp_path / "batch.jsonl").read_bytes()


def batch(path, columns, **settings):
    with MetricsLogger(path, **settings) as logger:
        logger.write_batch(columns)
    return read_metrics(path)


@pytest.mark.parametrize(
    "dtype",
    [
        *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
        *("float16", "float32", "float64", "bfloat16", "float8_e4m3fn", "int4", "uint4"),
    ],
)
def test_lines_are_those_of_write_for_every_dtype(tmp_path, dtype):
    numbers = np.array(SPECIAL if "float" in dtype else [0, 1, 3, 7, 1, 0, 5, 2])
    with np.errstate(over="ignore"):
        column = numbers.astype(jnp.dtype(dtype))
    expected = lines_of_rows(tmp_path, [{"x": x, "wall_time": 0.5} for x in column])
    assert lines_of_batch(tmp_path, {"x": column, "wall_time": 0.5}) == expected


def test_lines_are_those_of_write_for_columns_of_every_shape(tmp_path):
    n = 5
    columns = {
        "step": range(10, 10 + n),
        "loss": jnp.arange(n) / 7,
        "vector": np.arange(2 * n, dtype=np.float32).reshape(n, 2) / 3,
        "one": np.ones((n, 1, 1)),
        "none": np.ones((n, 0)),
        "strided": np.arange(2 * n)[::2],
        "foreign": np.arange(n).astype(">f4"),
        "when": np.arange(n).astype("datetime64[D]"),
        "text": ["a", "null", 'x"y', "%b", "ü"],
        "mixed": [1, 2.5, None, True, "x"],
        "nested": {"a/b": np.arange(n), "deep": {"%": jnp.ones(n, jnp.bfloat16) * 0.42}},
        "wall_time": np.linspace(0, 1, n),
    }
    shared = {"phase": "50%", "lr": jnp.float32(3e-4), "nothing": None, "at": Path("x"), "of": {}}

    def row(columns, index):
        return {
            name: row(column, index) if isinstance(column, dict) else column[index]
            for name, column in columns.items()
        }

    expected = lines_of_rows(tmp_path, [{**row(columns, i), **shared} for i in range(n)])
    assert lines_of_batch(tmp_path, {**columns, **shared}) == expected


@pytest.mark.parametrize("unit", ["Y", "D", "h", "s", "ms", "us", "ns"])
def test_lines_are_those_of_write_for_times(tmp_path, unit):
    times = np.array(["2024-02-29T12:34:56.789012345", "NaT", "1969-12-31"], f"datetime64[{unit}]")
    columns = {
        "when": times,
        "one": times[:, None],
        "pairs": np.stack([times, times[::-1]], axis=1),
        "deep": np.broadcast_to(times[:, None, None], (3, 2, 1)),
        "wall_time": np.ones(3),
    }
    rows = [{name: column[i] for name, column in columns.items()} for i in range(3)]
    assert lines_of_batch(tmp_path, columns) == lines_of_rows(tmp_path, rows)


@pytest.mark.parametrize("unit", ["D", "us", "ns"])
def test_durations_are_refused_as_by_write(tmp_path, unit):
    column = np.arange(3).astype(f"timedelta64[{unit}]")
    with MetricsLogger(tmp_path / "m.jsonl") as logger:
        with pytest.raises(TypeError) as by_write:
            logger.write({"took": column[0]})
        with pytest.raises(TypeError) as by_write_batch:
            logger.write_batch({"took": column})
    assert str(by_write_batch.value) == str(by_write.value)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.floats(width=32), st.floats(), st.integers(-(2**63), 2**63 - 1))),
    st.integers(1, 5),
)
def test_any_numbers_survive_and_the_cut_changes_nothing(rows, most):
    single, double, integer = zip(*rows, strict=True) if rows else ((), (), ())
    columns = {
        "single": np.array(single, np.float32),
        "double": np.array(double, np.float64),
        "integer": np.array(integer, np.int64),
        "list": list(double),
    }
    tree, length = host_columns(columns)
    whole = b"".join(block.lines() for block in cut(tree, length, most=length or 1))
    assert b"".join(block.lines() for block in cut(tree, length, most=most)) == whole
    assert whole.count(b"\n") == len(rows)


def test_integers_beyond_int64(tmp_path):
    column = np.array([2**64 - 1, 0], np.uint64)
    assert [r["x"] for r in batch(tmp_path / "a.jsonl", {"x": column})] == [2**64 - 1, 0]
    steps = range(2**63, 2**63 + 2)
    assert [r["x"] for r in batch(tmp_path / "b.jsonl", {"x": steps})] == list(steps)


def test_wall_time_is_the_calls_own(tmp_path):
    with MetricsLogger(tmp_path / "m.jsonl") as logger:
        time.sleep(0.02)
        logger.write_batch({"x": np.zeros(2_000)})
    times = {record["wall_time"] for record in read_metrics(tmp_path / "m.jsonl")}
    assert len(times) == 1
    assert times.pop() >= 0.02


def test_an_empty_batch_logs_nothing(tmp_path):
    assert batch(tmp_path / "m.jsonl", {"step": range(0), "x": np.zeros((0, 3))}) == []


@pytest.mark.parametrize("kind", ["numpy", "list", "nested list"])
def test_the_batch_is_a_snapshot(tmp_path, kind):
    inner = np.zeros(2)
    column = {
        "numpy": np.zeros(3_000),
        "list": [0.0] * 3_000,
        "nested list": [[inner]] * 3_000,
    }[kind]
    with MetricsLogger(tmp_path / "m.jsonl", flush_interval=60) as logger:
        logger.write({})  # from here on, the writer sleeps its interval
        logger.flush()
        logger.write_batch({"x": column})
        inner[:] = 1
        if kind == "numpy":
            column[:] = 1
        else:
            column.clear()
    expected = [[0.0, 0.0]] if kind == "nested list" else 0.0
    assert [r["x"] for r in read_metrics(tmp_path / "m.jsonl")[1:]] == [expected] * 3_000


def test_a_queued_batch_holds_no_device_buffer(tmp_path):
    donating = jax.jit(lambda x: x + 1, donate_argnums=0)
    column = jnp.zeros(3_000)
    address = column.unsafe_buffer_pointer()
    with MetricsLogger(tmp_path / "m.jsonl", flush_interval=60) as logger:
        logger.write({})
        logger.flush()
        logger.write_batch({"x": column})
        # JAX donates a buffer in silence only where nobody else refers to it.
        assert donating(column).unsafe_buffer_pointer() == address
        assert column.is_deleted()
    assert [r["x"] for r in read_metrics(tmp_path / "m.jsonl")[1:]] == [0.0] * 3_000


def test_each_jax_array_crosses_to_the_host_once(tmp_path, monkeypatch):
    column = jnp.zeros((5_000, 2))
    kind = type(column)
    transfers = []
    original = kind.__array__
    monkeypatch.setattr(
        kind, "__array__", lambda self, *args, **kw: transfers.append(1) or original(self)
    )
    monkeypatch.setattr(kind, "__getitem__", lambda *_: pytest.fail("row by row"))
    batch(tmp_path / "m.jsonl", {"x": column})
    assert len(transfers) <= 1  # NumPy may ask for the buffer instead


def test_lines_are_made_on_the_writers_thread(tmp_path, monkeypatch):
    threads = set()
    from vibe_rl.metrics.batch import ColumnBlock

    original = ColumnBlock.lines
    monkeypatch.setattr(
        ColumnBlock, "lines", lambda self: threads.add(threading.get_ident()) or original(self)
    )
    batch(tmp_path / "m.jsonl", {"x": np.zeros(1_000)})
    assert threads
    assert threading.get_ident() not in threads


def test_blocks_are_short(tmp_path):
    def sizes(columns):
        tree, length = host_columns(columns)
        blocks = list(cut(tree, length, most=4_096))
        assert all(len(block.lines()) <= len(block) for block in blocks)
        return [block.records for block in blocks]

    assert max(sizes({f"m{i}": RNG.random(5_000) for i in range(7)})) < 300
    assert max(sizes({f"m{i}": RNG.random(500).astype(np.float16) for i in range(7)})) < 30
    assert max(sizes({"wide": RNG.random((50, 10_000), np.float32)})) == 1
    assert max(sizes({"text": ["x" * 100_000] * 20})) == 1


def test_the_order_of_batches_and_records_is_kept(tmp_path):
    with MetricsLogger(tmp_path / "m.jsonl") as logger:
        step = 0
        for _ in range(50):
            for _ in range(20):
                logger.write({"step": step})
                step += 1
            logger.write_batch({"step": range(step, step + 700)})
            step += 700
    assert [record["step"] for record in read_metrics(tmp_path / "m.jsonl")] == list(range(step))


class StalledFile:
    """Makes a logger's appends wait until told to go on."""

    def __init__(self, logger):
        self.go = threading.Event()
        self.waits = threading.Event()
        self._append = logger._writer._append
        logger._writer._append = self.append

    def append(self, data):
        self.waits.set()
        self.go.wait()
        return self._append(data)


def stalled(path, **settings):
    logger = MetricsLogger(path, flush_interval=0, **settings)
    disk = StalledFile(logger)
    logger.write({"step": -1})
    disk.waits.wait()
    return logger, disk


@pytest.mark.parametrize("queue_size", [10, 4_000])
def test_a_batch_larger_than_the_queue_waits_and_loses_nothing(tmp_path, queue_size):
    logger, disk = stalled(tmp_path / "m.jsonl", queue_size=queue_size)
    caller = threading.Thread(target=logger.write_batch, args=({"step": range(20_000)},))
    caller.start()
    while logger._writer.queued < queue_size // 2:
        time.sleep(0.001)
    time.sleep(0.05)
    assert caller.is_alive()
    assert logger.stats.queued <= queue_size + 1  # and the one that the disk holds up
    disk.go.set()
    caller.join()
    logger.close()
    assert logger.stats.high_water <= queue_size
    assert (logger.stats.written, logger.stats.dropped) == (20_001, 0)
    assert [r["step"] for r in read_metrics(logger.path)] == list(range(-1, 20_000))


@pytest.mark.parametrize("queue_size", [10, 1_000])
@pytest.mark.parametrize("overflow", ["drop_oldest", "drop_newest"])
def test_dropped_records_are_counted_one_by_one(tmp_path, overflow, queue_size):
    logger, disk = stalled(tmp_path / "m.jsonl", queue_size=queue_size, overflow=overflow)
    logger.write_batch({"step": range(5_000)})
    logger.write({"step": 5_000})
    stats = logger.stats
    assert stats.written + stats.queued + stats.dropped == 5_002
    disk.go.set()
    logger.close()
    stats = logger.stats
    steps = [r["step"] for r in read_metrics(logger.path)]
    assert (stats.written, stats.dropped) == (len(steps), 5_002 - len(steps))
    # A batch is dropped in parts of at most a sixteenth of the queue.
    assert queue_size - queue_size // 16 <= len(steps) - 1 <= queue_size
    kept = steps[1:]
    if overflow == "drop_oldest":
        assert kept == list(range(5_001 - len(kept), 5_001))
    elif queue_size == 10:
        assert kept == list(range(10))


def test_the_queue_is_bounded_in_bytes_too(tmp_path, monkeypatch):
    monkeypatch.setattr("vibe_rl.metrics.writer.MAX_BYTES", 1 << 20)
    logger, disk = stalled(tmp_path / "m.jsonl", overflow="drop_newest")
    logger.write_batch({"x": RNG.random((1_000, 1_000))})
    waiting = list(logger._writer._queue)
    assert sum(map(len, waiting)) <= 1 << 20
    assert logger.stats.dropped == 1_000 - sum(block.records for block in waiting)
    disk.go.set()
    logger.close()


@pytest.mark.parametrize(
    ("columns", "error", "message"),
    [
        ([1, 2], TypeError, "mapping of names to arrays"),
        ({"a": 1.0, "b": "x"}, ValueError, r"at least one column.*\['a', 'b'\].*write\(\)"),
        ({}, ValueError, "at least one column"),
        (
            {"a": np.ones(3), "b": {"c": np.ones(2)}},
            ValueError,
            r"'a' has 3 rows, 'b\.c' has 2",
        ),
        ({"a": np.ones(2, complex)}, TypeError, "metric 'a'.*complex"),
        ({"a": np.ones(2), "b": {"c": object()}}, TypeError, r"metric 'b\.c'"),
        ({"a": ["x", object()]}, TypeError, r"metric 'a\.1'"),
        ({"a": [1, 2**64]}, ValueError, "metric 'a'.*64-bit"),
        ({"a": range(2**64, 2**64 + 2)}, ValueError, "metric 'a'.*64-bit"),
        ({"a": np.ones(2), 3: 1}, TypeError, "name is a string, not 3"),
        ({"a": np.ones(2), "_nonfinite": 1}, ValueError, "_nonfinite"),
        ({"a": np.ones(2), "b": 2**64}, ValueError, "metric 'b'.*64-bit"),
    ],
)
def test_bad_batches_are_named_at_the_call_and_log_nothing(tmp_path, columns, error, message):
    with MetricsLogger(tmp_path / "m.jsonl") as logger:
        with pytest.raises(error, match=message):
            logger.write_batch(columns)
        logger.write({"step": 1})
    assert [record["step"] for record in read_metrics(tmp_path / "m.jsonl")] == [1]


def test_a_deleted_column_and_a_tracer_are_named(tmp_path):
    deleted = jnp.ones(3)
    deleted.delete()
    with MetricsLogger(tmp_path / "m.jsonl") as logger:
        with pytest.raises(ValueError, match=r"metric 'x'.*donated"):
            logger.write_batch({"x": deleted})
        with pytest.raises(TypeError, match=r"metric 'x'.*tracer"):
            jax.jit(lambda x: logger.write_batch({"x": x}))(jnp.ones(3))
        with pytest.raises(TypeError, match=r"metric 'x'.*PRNG key"):
            logger.write_batch({"x": jax.random.split(jax.random.key(0), 3)})


def test_a_closed_logger_refuses(tmp_path):
    logger = MetricsLogger(tmp_path / "m.jsonl")
    logger.close()
    with pytest.raises(ValueError, match="closed"):
        logger.write_batch({"x": np.zeros(3)})


@pytest.mark.filterwarnings("ignore:os.fork")
def test_a_forked_child_writes_batches_at_once(tmp_path):
    logger = MetricsLogger(tmp_path / "m.jsonl")
    child = os.fork()
    if child == 0:
        logger.write_batch({"step": range(2_000)})
        os._exit(0)
    os.waitpid(child, 0)
    logger.close()
    assert [r["step"] for r in read_metrics(logger.path)] == list(range(2_000))
