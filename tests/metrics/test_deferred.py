"""`defer`: order, moment and values are those of `write()`; only the reading is late."""

import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from under_way import ends_with

from vibe_rl.metrics import MetricsLogger, deferred, pack, read_metrics


class Slow:
    """A computation that ends when told to."""

    def __init__(self):
        self.go = threading.Event()
        self._compute = ends_with(self._wait)

    def _wait(self, x):
        assert self.go.wait(60)  # a test that fails before it says so still ends
        return np.asarray(x)

    def __call__(self, value):
        return self._compute(value)


@pytest.fixture
def slow():
    slow = Slow()
    yield slow
    slow.go.set()


donating = jax.jit(lambda x: x + 1, donate_argnums=0)


itself = []
itself.append(itself)


def steps(path):
    return [record["step"] for record in read_metrics(path)]


def until(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.parametrize("defer", [1, 2, 5])
def test_records_are_those_of_write(tmp_path, defer):
    def run(path, **settings):
        with MetricsLogger(path, **settings) as logger:
            for step in range(20):
                x = jnp.float32(step) / 3
                logger.write(
                    {
                        "step": step,
                        "x": x,
                        "half": x.astype(jnp.bfloat16),
                        "deep": {"list": [x, 1, "a"], "vector": jnp.arange(3) * x},
                        "nan": jnp.log(-1 - x),
                        "wall_time": 0.5,
                    }
                )
        return path.read_bytes()

    assert run(tmp_path / "a", defer=defer) == run(tmp_path / "b")


def test_write_waits_for_no_step_that_was_just_dispatched(tmp_path, slow):
    with MetricsLogger(tmp_path / "m.jsonl", defer=2) as logger:
        logger.write({"step": 0, "x": slow(0)})
        logger.write({"step": 1, "x": slow(1)})  # returns, though nothing is computed yet
        assert logger.stats.queued == 2
        third = threading.Thread(target=lambda: logger.write({"step": 2, "x": 2.0}))
        third.start()  # of another thread: it doesn't wait for ours either
        third.join(30)
        assert not third.is_alive()
        slow.go.set()
    assert steps(tmp_path / "m.jsonl") == [0, 1, 2]


def test_write_waits_for_the_record_of_so_many_calls_ago(tmp_path, slow):
    with MetricsLogger(tmp_path / "m.jsonl", defer=1) as logger:

        def loop():
            for step in range(3):
                logger.write({"step": step, "x": slow(step)})

        thread = threading.Thread(target=loop)
        thread.start()
        until(lambda: logger.stats.queued == 2)
        time.sleep(0.05)
        assert logger.stats.queued == 2
        slow.go.set()
        thread.join()
        assert logger._deferred.queued <= 1
    assert steps(tmp_path / "m.jsonl") == [0, 1, 2]


def test_what_is_held_is_bounded_whoever_wrote_the_oldest(tmp_path, slow, monkeypatch):
    await_values = deferred.Held.await_values

    def spy(held, deadline):
        slow.go.set()  # not before somebody waits
        return await_values(held, deadline)

    monkeypatch.setattr(deferred, "_MANY", 5)
    monkeypatch.setattr(deferred.Held, "await_values", spy)
    held = []
    with MetricsLogger(tmp_path / "m.jsonl", defer=1) as logger:

        def loop():
            for step in range(1, 20):
                logger.write({"step": step})
                held.append(len(logger._deferred._held))

        logger.write({"step": 0, "x": slow(0)})
        thread = threading.Thread(target=loop)
        thread.start()
        thread.join()
    assert max(held) == 4
    assert steps(tmp_path / "m.jsonl") == list(range(20))


def test_wall_time_is_that_of_the_call(tmp_path):
    before = time.monotonic()
    with MetricsLogger(tmp_path / "m.jsonl", defer=3) as logger:
        logger._writer._on_idle = lambda: False  # which might read it at once
        logger.write({"x": jnp.float32(1)})
        took = time.monotonic() - before
        time.sleep(0.1)
    assert read_metrics(tmp_path / "m.jsonl")[0]["wall_time"] <= took


def test_host_values_are_a_snapshot(tmp_path):
    array, inner = np.zeros(3), [np.zeros(2), jnp.float32(1)]
    record = {"array": array, "list": inner, "deep": {"array": array}}
    with MetricsLogger(tmp_path / "m.jsonl", defer=1) as logger:
        logger.write(record)
        array[:] = 1
        inner[0][:] = 1
        inner.append(2)
        record["deep"]["more"] = 1
        record.clear()
    (row,) = read_metrics(tmp_path / "m.jsonl")
    row.pop("wall_time")
    assert row == {"array": [0] * 3, "list": [[0, 0], 1], "deep": {"array": [0] * 3}}


@pytest.mark.parametrize("then", ["write", "flush", "close", "exit"])
def test_a_donated_value_is_a_clear_error_and_the_other_records_go_on(tmp_path, then):
    logger = MetricsLogger(tmp_path / "m.jsonl", defer=1)
    logger._writer._on_idle = lambda: False  # which might read it first
    x = jnp.float32(0)
    logger.write({"step": 0, "fine": jnp.float32(1)})
    logger.write({"step": 1, "deep": {"x": x}})
    donating(x)
    named = r"record of step 1 is lost: metric 'deep\.x'.*donated.*with defer.*don't donate"
    with pytest.raises(ValueError, match=named):
        if then == "write":
            logger.write({"step": 2})
        elif then == "exit":
            with logger:
                pass
        else:
            getattr(logger, then)()
    if then in ("write", "flush"):
        logger.write({"step": 3, "x": jnp.float32(3)})  # raised once
        logger.flush()
        logger.close()
    expected = {"write": [0, 2, 3], "flush": [0, 3]}.get(then, [0])
    assert steps(logger.path) == expected
    assert (logger.stats.dropped, logger.stats.queued) == (1, 0)


def test_a_value_may_be_donated_just_when_it_is_asked_whether_it_is_ready(monkeypatch):
    x = jnp.float32(0)
    held = deferred.Held([x], make=list, records=1, thread=0, step=None)
    donating(x)
    monkeypatch.setattr(type(x), "is_deleted", lambda self: False)  # it wasn't a moment ago
    assert held.is_ready()


def test_a_deleted_value_is_one_too(tmp_path, run_python):
    """JAX crashes where such an array is asked whether it is ready."""
    script = """
import jax.numpy as jnp
from vibe_rl.metrics import MetricsLogger
logger = MetricsLogger("metrics.jsonl", defer=1)
logger._deferred.log_ready = lambda: False  # or the writer's thread may read it before
loss = jnp.float32(1)
logger.write({"step": 0, "loss": loss})
loss.delete()
try:
    logger.flush(timeout=100)
except ValueError as error:
    print(error)
logger.write({"step": 1})
logger.close()
"""
    status, out, err = run_python(script)
    assert status == 0, err
    assert "the record of step 0 is lost: metric 'loss'" in out
    assert steps(tmp_path / "metrics.jsonl") == [1]


def test_an_error_that_ends_the_block_is_not_hidden_by_a_donated_value(tmp_path, caplog):
    with (
        pytest.raises(ZeroDivisionError),
        MetricsLogger(tmp_path / "m.jsonl", defer=1) as logger,
    ):
        logger._writer._on_idle = lambda: False
        x = jnp.float32(0)
        logger.write({"step": 0, "x": x})
        donating(x)
        raise ZeroDivisionError
    assert "metric 'x'" in caplog.text


def test_a_computation_that_failed_is_named_too(tmp_path):
    written = threading.Event()

    def fail(x):
        written.wait(60)
        raise RuntimeError("on purpose")

    failing = ends_with(fail)
    with MetricsLogger(tmp_path / "m.jsonl", defer=1) as logger:
        logger.write({"step": 0, "x": failing(0)})
        written.set()
        with pytest.raises(ValueError, match=r"(?s)metric 'x'.*on purpose"):
            logger.flush()
        logger.write({"step": 1})
    assert steps(tmp_path / "m.jsonl") == [1]


@pytest.mark.parametrize(
    ("record", "error", "message"),
    [
        ({"x": object()}, TypeError, "metric 'x'"),
        ({"deep": {"x": [1, object()]}}, TypeError, r"metric 'deep\.x\.1'"),
        ({"x": 2**64}, ValueError, "metric 'x'.*64-bit"),
        ({"deep": {"x": 2**64, "y": jnp.float32(1)}}, ValueError, "metric 'deep'.*64-bit"),
        ({1: jnp.float32(1)}, TypeError, "name is a string, not 1"),
        ({"_nonfinite": jnp.float32(1)}, ValueError, "_nonfinite"),
        ({"x": jax.random.key(0)}, TypeError, "metric 'x'.*PRNG key"),
        (jax.vmap(lambda x: pack({"x": x}))(np.ones(3)), ValueError, "write_batch"),
        ({"x": itself}, ValueError, "metric 'x.*contains itself"),
        ({"x": jnp.zeros((), complex)}, TypeError, "metric 'x'.*complex64"),
        ([("x", 1)], TypeError, "a record is a mapping"),
        (3, TypeError, "a record is a mapping"),
    ],
)
def test_what_can_be_known_at_once_is_an_error_at_once(tmp_path, record, error, message):
    with MetricsLogger(tmp_path / "m.jsonl", defer=1) as logger:
        with pytest.raises(error, match=message):
            logger.write(record)
        deleted = jnp.float32(0)
        donating(deleted)
        with pytest.raises(ValueError, match=r"metric 'x'.*donated"):
            logger.write({"x": deleted})
        with pytest.raises(TypeError, match=r"metric 'x'.*tracer"):
            jax.jit(lambda x: logger.write({"x": x}))(1.0)
        logger.write({"step": 0})
    assert steps(tmp_path / "m.jsonl") == [0]


def test_a_packed_record_is_held_too(tmp_path, slow):
    packing = jax.jit(lambda x: pack({"step": 0, "x": x, "text": "a"}))
    packing(jnp.float32(0))
    with MetricsLogger(tmp_path / "m.jsonl", defer=1) as logger:
        logger.write({"inside": packing(slow(1 / 3)), "wall_time": 0.5})
        assert logger.stats.queued == 1
        slow.go.set()
    inside = {"step": 0, "text": "a", "x": 0.33333334}
    assert read_metrics(tmp_path / "m.jsonl") == [{"inside": inside, "wall_time": 0.5}]


def test_flush_logs_what_is_held(tmp_path):
    with MetricsLogger(tmp_path / "m.jsonl", defer=5) as logger:
        logger.write({"step": 0, "x": jnp.float32(0)})
        assert logger.flush()
        assert steps(logger.path) == [0]


def test_flush_and_close_with_a_timeout_don_t_wait_for_the_device(tmp_path, slow, caplog):
    logger = MetricsLogger(tmp_path / "m.jsonl", defer=1)
    logger.write({"step": 0, "x": slow(0)})
    assert not logger.flush(timeout=0.01)
    assert not logger.close(timeout=0.01)
    assert "1 records wait for values that are still being computed" in caplog.text


def test_an_idle_logger_logs_what_is_ready_and_waits_for_nothing(tmp_path, slow):
    with MetricsLogger(tmp_path / "m.jsonl", defer=3) as logger:
        logger.write({"step": 0, "x": jnp.float32(0)})
        until(lambda: steps(logger.path) == [0])
        logger.write({"step": 1, "x": slow(1)})
        logger.write({"step": 2, "x": jnp.float32(2)})
        time.sleep(0.3)
        assert steps(logger.path) == [0]  # 2 is ready, but comes after 1
        assert logger.stats.queued == 2
        slow.go.set()
        until(lambda: steps(logger.path) == [0, 1, 2])


def test_a_batch_comes_after_what_is_held(tmp_path, slow):
    batch = np.arange(2, 1_000)
    with MetricsLogger(tmp_path / "m.jsonl", defer=4) as logger:
        logger.write({"step": 0, "x": slow(0)})
        logger.write({"step": 1})
        logger.write_batch({"step": batch})
        batch[:] = 0
        logger.write({"step": 1_000})
        assert logger.stats.queued == 1_001
        slow.go.set()
    assert steps(tmp_path / "m.jsonl") == list(range(1_001))


@pytest.mark.parametrize("defer", [1, 4])
def test_threads_keep_their_order(tmp_path, defer):
    def work(name):
        for step in range(300):
            logger.write({"name": name, "step": step, "x": jnp.float32(step)})

    with MetricsLogger(tmp_path / "m.jsonl", defer=defer, queue_size=20) as logger:
        threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    records = read_metrics(tmp_path / "m.jsonl")
    assert len(records) == 1_200
    for name in range(4):
        mine = [record for record in records if record["name"] == name]
        assert [record["step"] for record in mine] == list(range(300))
        assert [record["x"] for record in mine] == list(range(300))


def test_a_computation_may_log_while_a_record_waits_for_its_value(tmp_path, monkeypatch):
    monkeypatch.setattr(deferred, "_MANY", 2)  # nor then does a callback wait
    logger = MetricsLogger(tmp_path / "m.jsonl", defer=1)
    await_values, awaited = deferred.Held.await_values, threading.Event()

    def spy(held, deadline):
        awaited.set()
        return await_values(held, deadline)

    monkeypatch.setattr(deferred.Held, "await_values", spy)

    def log(x):
        assert awaited.wait(60)
        for number in range(3):
            logger.write({"step": f"inside {number}", "x": x})
        return np.asarray(x)

    x = ends_with(log)(0)
    logger.write({"step": 0, "x": x})
    logger.write({"step": 1, "x": x})  # waits for x, whose computation writes meanwhile
    logger.close()
    assert steps(logger.path) == [0, 1, "inside 0", "inside 1", "inside 2"]


def test_a_forked_child_logs_at_once_and_nothing_of_its_parent(tmp_path, run_python):
    run_python(f"""
import os, warnings
warnings.simplefilter("ignore")
import jax.numpy as jnp
from vibe_rl.metrics import MetricsLogger
logger = MetricsLogger({str(tmp_path / "m.jsonl")!r}, defer=9)
logger._writer._on_idle = lambda: False
logger.write({{"step": 0, "x": jnp.float32(0)}})
if os.fork() == 0:
    logger.write({{"step": 1}})
    os._exit(0)
os.wait()
logger.close()
""")
    assert sorted(steps(tmp_path / "m.jsonl")) == [0, 1]


@pytest.mark.parametrize("defer", [-1, 1.5, True, None])
def test_defer_is_a_number_of_records(tmp_path, defer):
    with pytest.raises(ValueError, match="defer is a number of records"):
        MetricsLogger(tmp_path / "m.jsonl", defer=defer)
