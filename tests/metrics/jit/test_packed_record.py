"""A packed record is read by the writer's thread, and nobody can tell but by the time."""

import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vibe_rl.metrics import MetricsLogger, pack, read_metrics
from vibe_rl.metrics.jit.packed_record import PackedRecord


@jax.jit
def metrics(x):
    return pack({"x": x, "half": x.astype(jnp.bfloat16), "deep": {"n": x > 0, "text": "a"}})


donate_words = jax.jit(lambda packed: packed.words + 1, donate_argnums=0)


def stalled(path):
    """A logger whose thread won't look at the queue before it is closed."""
    logger = MetricsLogger(path, flush_interval=60)
    logger.write({})
    logger.flush()
    return logger


@pytest.mark.parametrize("value", [1 / 3, -1e30, float("nan")])
def test_its_line_is_that_of_its_mapping(tmp_path, value):
    with MetricsLogger(tmp_path / "a.jsonl") as logger:
        logger.write(metrics(jnp.float32(value)))
    with MetricsLogger(tmp_path / "b.jsonl") as logger:
        logger.write(metrics(jnp.float32(value)).unpack())
    packed, unpacked = (
        (tmp_path / name).read_bytes().split(b',"wall_time"')[0] for name in ("a.jsonl", "b.jsonl")
    )
    assert packed == unpacked


def test_its_own_wall_time_stays(tmp_path):
    with MetricsLogger(tmp_path / "m.jsonl") as logger:
        logger.write(jax.jit(lambda: pack({"wall_time": 0.5}))())
    assert read_metrics(tmp_path / "m.jsonl") == [{"wall_time": 0.5}]


def test_it_is_unpacked_on_the_writers_thread(tmp_path, monkeypatch):
    threads = set()
    lines = PackedRecord.lines
    monkeypatch.setattr(
        PackedRecord, "lines", lambda self: threads.add(threading.get_ident()) or lines(self)
    )
    with MetricsLogger(tmp_path / "m.jsonl") as logger:
        logger.write(metrics(jnp.float32(1)))
    assert len(threads) == 1
    assert threading.get_ident() not in threads


def test_what_waits_holds_no_device_buffer(tmp_path):
    packed = metrics(jnp.float32(1))
    address = packed.words.unsafe_buffer_pointer()
    with stalled(tmp_path / "m.jsonl") as logger:
        logger.write(packed)
        # JAX donates a buffer in silence only where nobody else refers to it.
        assert donate_words(packed).unsafe_buffer_pointer() == address
    assert read_metrics(tmp_path / "m.jsonl")[1]["x"] == 1


def test_records_keep_their_order_among_others(tmp_path):
    with MetricsLogger(tmp_path / "m.jsonl") as logger:
        for step in range(0, 300, 3):
            logger.write(jax.jit(lambda step: pack({"step": step}))(step))
            logger.write({"step": step + 1})
            logger.write_batch({"step": np.array([step + 2])})
    assert [record["step"] for record in read_metrics(tmp_path / "m.jsonl")] == list(range(300))


def test_its_size_is_never_less_than_its_line():
    for number in (-1.17549435e-38, "nan"):
        numbers = {f"{i:050}": jnp.float32(number) for i in range(50)}
        record = PackedRecord(pack(numbers), lambda row: None)
        assert len(record) >= len(record.lines())


def test_errors_come_from_write(tmp_path):
    deleted = metrics(jnp.float32(1))
    donate_words(deleted)
    with MetricsLogger(tmp_path / "m.jsonl") as logger:
        with pytest.raises(ValueError, match="donated"):
            logger.write(deleted)
        with pytest.raises(ValueError, match="_nonfinite"):
            logger.write(jax.jit(lambda x: pack({"_nonfinite": x}))(1.0))
        with pytest.raises(ValueError, match="write_batch"):
            logger.write(jax.vmap(metrics)(np.ones(3, np.float32)))
        with pytest.raises(TypeError, match="tracer"):
            jax.jit(lambda x: logger.write(pack({"x": x})))(1.0)
        logger.write({"step": 0})
    assert [record["step"] for record in read_metrics(tmp_path / "m.jsonl")] == [0]
