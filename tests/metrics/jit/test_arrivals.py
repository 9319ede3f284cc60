"""Records under way: logged while a computation runs, awaited at the end, counted when late."""

import faulthandler
import gc
import json
import logging
import os
import threading
import time
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src import dispatch
from under_way import ends_with

from vibe_rl.metrics import MetricsLogger, read_metrics

RECORDS = 5


@pytest.fixture
def path(tmp_path):
    return tmp_path / "metrics.jsonl"


@pytest.fixture
def gate():
    """`gate(x)` is an array that is not computed before `gate.open()`: a computation under way."""
    opened = threading.Event()

    def wait(x):
        opened.wait(60)
        return np.asarray(x)

    gate = ends_with(wait)
    gate.open = opened.set
    yield gate
    opened.set()
    jax.effects_barrier()


def emitting(logger):
    @jax.jit
    def f(x):
        jax.lax.fori_loop(0, RECORDS, lambda i, x: (logger.emit({"i": i, "x": x}), x + 1)[1], x)

    return f.lower(jnp.float32(0)).compile()


def after(seconds, do):
    timer = threading.Timer(seconds, do)
    timer.start()
    return timer


def test_leaving_the_block_loses_nothing_that_is_under_way(path, gate):
    with MetricsLogger(path) as logger:
        emitting(logger)(gate(0.0))
        assert logger.stats.written == 0
        after(0.3, gate.open)
    assert [record["i"] for record in read_metrics(path)] == list(range(RECORDS))


def test_flush_waits_for_what_is_under_way(path, gate):
    with MetricsLogger(path) as logger:
        emitting(logger)(gate(0.0))
        after(0.3, gate.open)
        assert logger.flush()
        assert len(read_metrics(path)) == RECORDS


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*fork.*:RuntimeWarning")
def test_a_forked_child_waits_for_no_computation_of_its_parent(path, gate):
    with MetricsLogger(path) as logger:
        emitting(logger)(gate(0.0))
        if (child := os.fork()) == 0:
            faulthandler.dump_traceback_later(60, exit=True)  # where it hung until now
            logger.write({"i": -1})
            os._exit(not (logger.flush() and logger.close()))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        gate.open()
    assert [record["i"] for record in read_metrics(path)] == [-1, *range(RECORDS)]


def test_flush_and_close_wait_no_longer_than_they_are_told(path, gate, caplog):
    with MetricsLogger(path) as logger:
        emitting(logger)(gate(0.0))
        logger.write({"i": -1})
        assert not logger.flush(timeout=0.1)
        assert not logger.close(timeout=0.1)
        assert "has not ended in time" in caplog.text
    assert [record["i"] for record in read_metrics(path)] == [-1]


def test_what_arrives_after_close_is_counted_and_warned_about_once(path, gate, caplog):
    with MetricsLogger(path) as logger:
        f = emitting(logger)
        f(gate(0.0))
        logger.close(timeout=0.1)
        gate.open()
        jax.effects_barrier()
        assert logger.stats.late == RECORDS
    f(jnp.float32(0))
    jax.effects_barrier()
    assert logger.stats.late == 2 * RECORDS
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "logs to the logger it was traced with" in warnings[0].getMessage()
    assert str(path) in warnings[0].getMessage()
    assert read_metrics(path) == []


def test_of_another_threads_computations_only_what_has_arrived_is_awaited(path, gate):
    """A stated limit: JAX doesn't tell one thread what another has started."""
    with MetricsLogger(path) as logger:
        f = emitting(logger)
        thread = threading.Thread(target=lambda: f(gate(0.0)))
        thread.start()
        thread.join()
        assert logger.close()
        assert read_metrics(path) == []
        gate.open()
    while logger.stats.late < RECORDS:
        time.sleep(0.01)


def test_errors_of_other_callbacks_stay_with_their_owner(path, gate):
    def fail(x):
        raise RuntimeError("not ours")

    @jax.jit
    def f(x):
        logger.emit({"x": x})
        jax.debug.callback(fail, x)

    with MetricsLogger(path) as logger:
        f(gate(1.0))
        gate.open()
        assert logger.flush()
    with pytest.raises(jax.errors.JaxRuntimeError, match="not ours"):
        jax.effects_barrier()
    dispatch.runtime_tokens.clear()  # JAX would raise it again and again


def test_a_callback_never_raises_into_the_computation(path, caplog, monkeypatch):
    with MetricsLogger(path) as logger:
        f = emitting(logger)
        monkeypatch.setattr("vibe_rl.metrics.intake.Unread", lambda *args: 1 / 0)
        f(jnp.float32(0))
        jax.effects_barrier()
        monkeypatch.undo()
        f(jnp.float32(0))
    assert len(read_metrics(path)) == RECORDS
    assert logger.stats.dropped == RECORDS
    (error,) = caplog.records
    assert "are lost" in error.getMessage()
    assert error.exc_info[0] is ZeroDivisionError


def test_with_a_jax_that_keeps_its_state_elsewhere_nothing_is_lost_either(path, monkeypatch):
    monkeypatch.setattr("vibe_rl.metrics.jit.arrivals._private", lambda module, name: None)
    with MetricsLogger(path) as logger:
        logger.emit({"where": "outside"})
        emitting(logger)(jnp.float32(0))
        assert logger.flush()
        assert len(read_metrics(path)) == 1 + RECORDS


def test_a_compiled_function_keeps_no_logger_and_a_logger_no_function(path):
    box = [MetricsLogger(path)]

    def step(carry, x):
        return carry + x, {"carry": carry}

    @jax.jit
    def f(x):
        box[0].emit({"x": x})
        return box[0].scan(lambda c, x: (c, {"c": c}), x, jnp.arange(3.0))

    f(1.0)
    box[0].scan(step, 0.0, jnp.arange(3.0))
    step_ref, logger_ref = weakref.ref(step), weakref.ref(box[0])
    del step
    gc.collect()
    assert step_ref() is None
    box.pop().close()
    gc.collect()
    assert logger_ref() is None
    f(1.0)  # its records are late, but do no harm


def test_what_defer_holds_back_is_not_waited_for(path, gate):
    zero = jax.block_until_ready(jnp.float32(0))
    with MetricsLogger(path, defer=1) as logger:
        logger.write({"held": gate(0.0)})
        # On a thread of its own, for of one thread's computations the second awaits the first.
        threading.Thread(target=emitting(logger), args=(zero,)).start()
        while logger.stats.written < RECORDS:
            time.sleep(0.01)
        assert logger.stats.queued == 1
        gate.open()
    assert read_metrics(path)[-1]["held"] == 0


def test_a_callback_waits_for_room_in_the_queue_and_nothing_is_lost(path):
    with MetricsLogger(path, queue_size=16) as logger:
        logger.scan(lambda c, _: (c + 1, {"c": c}), 0, length=2_000, every=500)
        jax.jit(jax.vmap(lambda x: logger.emit({"x": x})))(jnp.arange(1_000))
    assert len(read_metrics(path)) == 3_000


def test_several_threads_may_run_functions_that_log(path):
    with MetricsLogger(path) as logger:

        def body(carry, _):
            run, value = carry
            return (run, value * 0.9 + run), {"run": run, "value": value}

        run = jax.jit(lambda i: logger.scan(body, (i, 1.0), length=50, every=7))
        threads = [threading.Thread(target=run, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        jax.effects_barrier()
    records = read_metrics(path)
    for i in range(4):
        assert [record["step"] for record in records if record["run"] == i] == list(range(50))


TRACED_BUT_NEVER_RUN = """
import jax, sys
from vibe_rl.metrics import MetricsLogger, pack
from jax._src import xla_bridge
with MetricsLogger("metrics.jsonl") as logger:
    def f(x):
        logger.emit({"x": x}, every=2, step=1)
        return logger.scan(lambda c, _: (c, {"c": c}), x, length=3, every=2), pack({"x": x})
    jax.eval_shape(jax.vmap(f), jax.ShapeDtypeStruct((3,), "float32"))
    logger.emit({"x": 1})
    logger.flush()
print(xla_bridge.backends_are_initialized())
"""


def test_nothing_here_initialises_jaxs_backends(run_python):
    assert run_python(TRACED_BUT_NEVER_RUN) == (0, "False\n", "")


ENDS_WHILE_RUNNING = """
import jax, jax.numpy as jnp
from vibe_rl.metrics import MetricsLogger
logger = MetricsLogger("metrics.jsonl")
busy = jax.jit(lambda x: jax.lax.fori_loop(0, 30, lambda _, x: x @ x * 1e-3, x))
f = jax.jit(lambda x: logger.scan(lambda c, _: (c + 1, {"c": c}), x, length=10, every=3)[0])
f(busy(jnp.ones((500, 500)))[0, 0])
"""


def test_a_program_that_ends_while_its_last_computation_runs_loses_nothing(run_python, tmp_path):
    assert run_python(ENDS_WHILE_RUNNING) == (0, "", "")
    assert len(read_metrics(tmp_path / "metrics.jsonl")) == 10


# Two megabytes a callback, from computations that leave JAX's only thread no rest.
ON_ONE_CORE = """
import os
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
import jax, jax.numpy as jnp
from vibe_rl.metrics import MetricsLogger
busy = jax.jit(lambda x: jax.lax.fori_loop(0, 10, lambda _, x: x @ x * 1e-3, x))
big = jnp.ones((400, 400))
with MetricsLogger("metrics.jsonl") as logger:
    f = jax.jit(lambda x: logger.emit({"many": jnp.arange(500_000) + x}))
    for _ in range(3):
        f(busy(big)[0, 0])
"""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="can't choose its cores")
def test_large_records_do_not_hang_on_one_core(run_python, tmp_path):
    assert run_python(ON_ONE_CORE) == (0, "", "")
    records = read_metrics(tmp_path / "metrics.jsonl")
    assert [len(record["many"]) for record in records] == [500_000] * 3


# A run in the style of purejaxrl: one compiled function, vmapped over seeds. To log, it takes two
# lines: the `with`, and `logger.scan` for `jax.lax.scan`. Half-way it waits for the test's word.
PUREJAXRL = """
import sys
import jax, jax.numpy as jnp
from vibe_rl.metrics import MetricsLogger

UPDATES, SEEDS = 40, 8

def train(key):
    def update_step(runner_state, _):
        key, params, update = runner_state
        key, noise_key = jax.random.split(key)
        loss = (params**2).mean()
        params = 0.9 * params + 0.01 * jax.random.normal(noise_key, params.shape)
        jax.lax.cond(update == UPDATES // 2, half_way, lambda: None)
        return (key, params, update + 1), {"loss": loss, "update": update}

    runner_state = (key, jnp.ones(4), 0)
    return logger.scan(update_step, runner_state, None, UPDATES, every=5, lane="seed")

def half_way():
    jax.debug.callback(lambda: sys.stdin.readline())

with MetricsLogger("metrics.jsonl") as logger:
    keys = jax.random.split(jax.random.key(0), SEEDS)
    _, metrics = jax.jit(jax.vmap(train))(keys)
    print(metrics["loss"].tolist(), flush=True)
"""


def test_a_whole_run_in_one_compiled_function_logs_while_it_runs(python, tmp_path):
    path = tmp_path / "metrics.jsonl"
    process = python(PUREJAXRL)
    while len(read_metrics(path)) < 8 * 20:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    records = read_metrics(path)
    assert {record["update"] for record in records} == set(range(20))
    out, err = process.communicate("go\n", timeout=60)
    assert (process.returncode, err) == (0, "")
    losses = np.float32(json.loads(out))
    records = read_metrics(path)
    assert len(records) == 8 * 40
    assert {(record["seed"], record["update"]) for record in records} == {
        (seed, update) for seed in range(8) for update in range(40)
    }
    for record in records:
        assert record["step"] == record["update"]
        assert np.float32(record["loss"]) == losses[record["seed"], record["update"]]
