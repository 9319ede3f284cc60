"""What a record may hold, what each value becomes, and that it is the value of that moment."""

import collections
import datetime as dt
import enum
import json
import math
import pathlib
import types
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from vibe_rl.metrics import MetricsLogger, read_metrics
from vibe_rl.metrics.host import host_record
from vibe_rl.metrics.jsonl import decode, encode


class Phase(enum.StrEnum):
    WARM_UP = "warm-up"


class Level(enum.IntEnum):
    HARD = 3


class Reward(enum.Enum):
    SPARSE = object()
    DENSE = "dense reward"


class Losses(NamedTuple):
    actor: float
    critic: float


class Metre(float):
    pass


def logged(value):
    """What reads back of a value."""
    return decode(encode(host_record({"x": value})))["x"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        *((None, None), (True, True), (7, 7), (0.42, 0.42), ("κείμενο", "κείμενο")),
        *((2**64 - 1, 2**64 - 1), (-(2**63), -(2**63))),
        (Phase.WARM_UP, "warm-up"),
        (Level.HARD, 3),
        (Reward.SPARSE, "SPARSE"),
        (Reward.DENSE, "dense reward"),
        (pathlib.Path("runs/a"), "runs/a"),
        (pathlib.PurePosixPath("a") / "b", "a/b"),
        (dt.date(2026, 2, 15), "2026-02-15"),
        (dt.datetime(2026, 2, 15, 14, 30, tzinfo=dt.UTC), "2026-02-15T14:30:00+00:00"),
        (dt.time(14, 30), "14:30:00"),
        (np.datetime64("2026-02-15T14"), "2026-02-15T14"),
        ({"a": {"b": 1}}, {"a": {"b": 1}}),
        (types.MappingProxyType({"a": 1}), {"a": 1}),
        (collections.OrderedDict(a=1), {"a": 1}),
        (collections.ChainMap({"a": 1}), {"a": 1}),
        (Losses(0.5, 0.25), [0.5, 0.25]),
        ((1, [2, ()]), [1, [2, []]]),
        (Metre(0.5), 0.5),
        (np.str_("text"), "text"),
        (np.array(["a", "b"]), ["a", "b"]),
        (np.array([1, "a", None], object), [1, "a", None]),
        (np.bool_(True), True),
        (np.float16(0.42), 0.42),
        (np.array([[0.42]], np.float32), 0.42),
        (np.array([1.5, 2], ">f4"), [1.5, 2]),
        (np.array(1.5, ">f8"), 1.5),
        (np.arange(6).reshape(2, 3)[:, ::2], [[0, 2], [3, 5]]),
        (np.asfortranarray(np.arange(4).reshape(2, 2)), [[0, 1], [2, 3]]),
        (np.zeros(0), []),
        (np.zeros((2, 0)), [[], []]),
        (np.zeros((2, 0), ml_dtypes.bfloat16), [[], []]),
        (np.zeros((3, 1), ml_dtypes.bfloat16), [[0], [0], [0]]),
        (np.broadcast_to(np.float32(0.1), (2, 2)), [[0.1, 0.1], [0.1, 0.1]]),
    ],
)
def test_host_values(value, expected):
    back = logged(value)
    assert back == expected
    assert type(back) is type(expected)


INTEGERS = ("int2", "int4", "int8", "int16", "int32", "uint2", "uint4", "uint8", "uint16", "uint32")
FLOATS = (
    *("float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e3m4"),
    *("float8_e4m3", "float8_e4m3b11fnuz", "float8_e4m3fnuz", "float8_e5m2fnuz"),
    *("float8_e8m0fnu", "float4_e2m1fn"),
)


@pytest.mark.parametrize("name", [*INTEGERS, *FLOATS, "bool"])
def test_every_jax_dtype(name):
    dtype = getattr(jnp, name)
    kind = bool if name == "bool" else float if name in FLOATS else int
    for value in (jnp.array(1, dtype), jnp.ones(1, dtype), jnp.ones((1, 1), dtype)):
        assert logged(value) == 1
        assert type(logged(value)) is kind
    array = jnp.array([[1, 0.5 if name == "float8_e8m0fnu" else 0]], dtype)
    assert logged(array) == np.asarray(array).astype(kind).tolist()
    assert {type(number) for number in logged(array)[0]} == {kind}


def test_weak_types_are_their_own_dtype():
    assert encode(
        host_record({"a": jnp.asarray(0.1), "b": jnp.asarray(3), "c": 0.1 * jnp.ones(())})
    )
    assert logged(jax.jit(lambda x: x * 0.42)(1.0)) == 0.42
    assert type(logged(jnp.asarray(3))) is int


def test_64_bit_dtypes(run_python, tmp_path):
    script = """
import jax, sys
jax.config.update("jax_enable_x64", True)
import jax.numpy as jnp
from vibe_rl.metrics import MetricsLogger
with MetricsLogger(sys.argv[1]) as logger:
    logger.write({"i": jnp.int64(-2**63), "u": jnp.uint64(2**64 - 1), "f": jnp.float64(0.1) + 0.2})
"""
    assert run_python(script, "metrics.jsonl")[0] == 0
    (record,) = read_metrics(tmp_path / "metrics.jsonl")
    assert (record["i"], record["u"], record["f"]) == (-(2**63), 2**64 - 1, 0.1 + 0.2)


def test_sharded_arrays_of_this_process_are_whole(run_python):
    script = """
import os
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
import jax, jax.numpy as jnp
from jax.sharding import PartitionSpec
from vibe_rl.metrics.host import host_record
mesh = jax.make_mesh((2,), ("d",))
x = jax.device_put(jnp.arange(4), jax.sharding.NamedSharding(mesh, PartitionSpec("d")))
print(host_record({"x": x})["x"].tolist())
"""
    assert run_python(script)[:2] == (0, "[0, 1, 2, 3]\n")


def donated():
    x = jnp.ones(3)
    jax.jit(lambda x: x + 1, donate_argnums=0)(x)
    return x


def deleted():
    x = jnp.ones(())
    x.delete()
    return x


def contains_itself():
    values = []
    values.append({"again": values})
    return values


def nested(levels, value=1):
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "error", "reason"),
    [
        (jax.random.key(0), TypeError, "PRNG key array.*key_data"),
        (jax.random.split(jax.random.key(0)), TypeError, "PRNG key array"),
        (donated, ValueError, "deleted or donated"),
        (deleted, ValueError, "deleted or donated"),
        (contains_itself, ValueError, "nested too deeply, or contains itself"),
        (nested(300), ValueError, "Recursion limit"),
        (nested(253, math.nan), ValueError, "Recursion limit"),
        (object(), TypeError, "builtins.object can't be logged"),
        (object, TypeError, "builtins.type can't be logged"),
        ({1, 2}, TypeError, "builtins.set"),
        (b"bytes", TypeError, "builtins.bytes"),
        (1j, TypeError, "builtins.complex"),
        (np.complex64(1), TypeError, "complex64"),
        (jnp.ones(2, jnp.complex64), TypeError, "complex64"),
        (np.longdouble(1), TypeError, "longdouble"),
        (np.timedelta64(1, "s"), TypeError, "timedelta64"),
        (np.zeros(2, [("a", "f4")]), TypeError, "void"),
        (np.array([1, object()]), TypeError, "builtins.object"),
        (iter([1]), TypeError, "list_iterator"),
        (lambda: 1, TypeError, "function"),
        (2**64, ValueError, "64-bit"),
        (-(2**63) - 1, ValueError, "64-bit"),
        ("\ud800", ValueError, "surrogates"),
        ({1: 2}, TypeError, "name inside it is a string, not 1"),
        ([{None: 2}], TypeError, "name inside it is a string, not None"),
    ],
)
def test_what_the_file_cannot_hold_is_refused_by_name(value, error, reason, tmp_path):
    if any(value is make for make in (donated, deleted, contains_itself)):
        value = value()
    with MetricsLogger(tmp_path / "metrics.jsonl") as logger:
        with pytest.raises(error, match=f"(?s)metric 'eval.*{reason}") as caught:
            logger.write({"loss": 1, "eval": value})
        assert len(str(caught.value)) < 500
        with pytest.raises(error, match=f"(?s)metric 'deep.*{reason}"):
            logger.write({"deep": {"er": [0, value]}})
        logger.write({"loss": 2})
    assert [record["loss"] for record in read_metrics(logger.path)] == [2]


def test_the_place_of_a_bad_value_is_named():
    with pytest.raises(TypeError, match=r"metric 'a\.b\.1\.c'"):
        host_record({"a": {"b": [0, {"c": object()}]}})


def test_a_tracer_is_told_to_leave_jit():
    def step(x):
        host_record({"loss": x})

    for transform in (jax.jit, jax.grad, jax.vmap):
        with pytest.raises(TypeError, match=r"metric 'loss': is a tracer \(.*float32.*inside jit"):
            transform(step)(jnp.ones(3) if transform is jax.vmap else 1.0)


@pytest.mark.parametrize("record", [None, 3, [("loss", 1)], "loss", {"loss"}, object()])
def test_a_record_is_a_mapping(record):
    with pytest.raises(TypeError, match="a record is a mapping of names to values"):
        host_record(record)


@pytest.mark.parametrize("name", [1, None, b"loss", ("a",), 1.5])
def test_a_name_is_a_string(name):
    with pytest.raises(TypeError, match="name is a string, not"):
        encode(host_record({name: 1}))


def test_any_mapping_is_a_record():
    assert host_record(collections.UserDict(loss=1)) == {"loss": 1}
    assert decode(encode(host_record({Phase.WARM_UP: 1}))) == {"warm-up": 1}


def test_a_record_is_a_snapshot(tmp_path):
    array, values, mapping = np.zeros(3, np.float32), [1], {"a": {"b": 1}}
    record = {"array": array, "view": array[::2], "values": values, "mapping": mapping}
    # Nothing is appended before the flush, so the lines wait in the queue when all this changes.
    with MetricsLogger(tmp_path / "metrics.jsonl", flush_interval=3600) as logger:
        logger.write({"first": True})
        logger.flush()
        logger.write(record)
        array[:] = 7
        values.append(2)
        mapping["a"]["b"] = record["more"] = 2
    (line,) = (line for line in read_metrics(logger.path) if "array" in line)
    del line["wall_time"]
    assert line == {"array": [0, 0, 0], "view": [0, 0], "values": [1], "mapping": {"a": {"b": 1}}}


def test_a_buffer_may_be_donated_right_after_write(tmp_path):
    @jax.jit(donate_argnums=0)
    def step(state):
        return state + 1

    # Warm: from now on a donated buffer is used in place, unless somebody holds on to it.
    state = jax.block_until_ready(step(step(jnp.zeros(1_000))))
    places = set()
    with MetricsLogger(tmp_path / "metrics.jsonl") as logger:
        for n in range(20):
            logger.write({"n": n, "state": state, "first": state[0]})
            places.add(state.unsafe_buffer_pointer())
            before, state = state, jax.block_until_ready(step(state))
            assert before.is_deleted()
    assert len(places) == 1
    for record in read_metrics(logger.path):
        assert record["state"] == [record["n"] + 2] * 1_000
        assert record["first"] == record["n"] + 2


def test_no_number_is_lost_in_a_corner():
    assert math.copysign(1, logged(jnp.array(-0.0))) == -1
    assert math.copysign(1, logged(jnp.array(-0.0, jnp.bfloat16))) == -1
    assert math.isnan(logged(jnp.array(jnp.nan, jnp.float8_e4m3fn)))
    assert logged(-jnp.array(jnp.inf)) == -math.inf
    assert json.loads(encode(host_record({"x": jnp.array([1, jnp.nan])})))["x"] == [1, None]


def test_where_reading_means_a_transfer_all_are_started_before_the_first_is_awaited(monkeypatch):
    from vibe_rl.metrics import host

    values = {f"m{i}": jnp.float32(i) for i in range(3)}
    deleted = jnp.float32(3)
    deleted.delete()
    events = []
    kind = type(deleted)
    start = kind.copy_to_host_async
    monkeypatch.setattr(kind, "copy_to_host_async", lambda x: events.append("start") or start(x))
    monkeypatch.setattr(host, "_asarray", lambda x: events.append("read") or np.asarray(x))
    host_record(values)
    assert events == ["read"] * 3  # on a CPU, there is nothing to start
    events.clear()
    monkeypatch.setattr(host, "_COPIED_AHEAD", {kind})
    assert host_record({**values, "deep": values})["deep"] == {"m0": 0, "m1": 1, "m2": 2}
    assert events == [*["start"] * 3, *["read"] * 3] * 2
    with pytest.raises(ValueError, match=r"metric 'x'.*donated"):
        host_record({"x": deleted})


@pytest.mark.parametrize("value", [np.ma.masked, np.ma.array([1.0, 2.0], mask=[0, 1])])
def test_masked_arrays_are_refused_with_the_way_out(value):
    with pytest.raises(TypeError, match=r"metric 'x': is a masked array: log array\.filled"):
        host_record({"x": value})
