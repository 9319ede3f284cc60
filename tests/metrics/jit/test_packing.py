import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vibe_rl.metrics import MetricsLogger, Packed, pack, read_metrics

DTYPES = [
    *("bool", "int2", "int4", "uint2", "uint4", "int8", "uint8", "int16", "uint16"),
    *("int32", "uint32", "int64", "uint64", "float4_e2m1fn", "float8_e4m3fn", "float8_e5m2"),
    *("float8_e8m0fnu", "bfloat16", "float16", "float32", "float64"),
]


def every_kind_of_bits(dtype):
    """Values of a type that between them have all its bits set and cleared."""
    if dtype.itemsize == 1:
        bits = np.arange(256, dtype=np.uint8)
        values = bits.view(dtype) if dtype.name.startswith(("float8", "int8", "uint8")) else bits
        return values.astype(dtype)
    return np.random.default_rng(0).integers(0, 256, 4_096, np.uint8).view(dtype)


def bits(values):
    return np.ascontiguousarray(values).view(np.uint8).tolist()


@pytest.mark.parametrize("name", DTYPES)
def test_values_of_every_type_arrive_bit_for_bit(name):
    with jax.enable_x64(True):
        values = every_kind_of_bits(jnp.dtype(name))
        unpacked = jax.jit(lambda values: pack({"all": values, "one": values[1]}))(values).unpack()
    assert unpacked["all"].dtype == unpacked["one"].dtype == values.dtype
    assert bits(unpacked["all"]) == bits(values)
    assert bits(unpacked["one"]) == bits(values[1])


def test_a_record_of_all_types_is_one_array_and_is_logged_like_the_values_themselves(tmp_path):
    with jax.enable_x64(True):
        numbers = {name: 1 if "e8m0" in name or name[-1] in "24" else 0.42 for name in DTYPES}
        metrics = {name: jnp.asarray(number, name) for name, number in numbers.items()}
        metrics |= {"big": jnp.int64(2**62 + 1), "exact": jnp.int32(2**24 + 1), "nan": jnp.nan}
        packed = jax.jit(pack)(metrics)
        assert len(jax.tree.leaves(packed)) == 1
        with MetricsLogger(tmp_path / "metrics.jsonl") as logger:
            logger.write(packed)
            logger.write(metrics)
    one, other = read_metrics(tmp_path / "metrics.jsonl")
    del one["wall_time"], other["wall_time"]
    assert str(dict(sorted(one.items()))) == str(dict(sorted(other.items())))
    assert (one["bfloat16"], one["exact"]) == (0.42, 2**24 + 1)


def test_names_nesting_text_and_none_are_static_and_shapes_stay():
    metrics = {"b": {"y": jnp.ones((2, 3)), "x": 1}, "a": 0.5, "phase": "train", "no": None}
    unpacked = jax.jit(lambda: pack(metrics))().unpack()
    assert list(unpacked) == ["a", "b", "no", "phase"]
    assert unpacked["b"]["y"].tolist() == np.ones((2, 3)).tolist()
    assert (unpacked["b"]["x"], unpacked["phase"], unpacked["no"]) == (1, "train", None)
    assert isinstance(unpacked["a"], np.float32)


def test_what_scan_stacks_is_a_batch(tmp_path):
    def step(carry, x):
        return carry + x, pack({"step": x, "nested": {"half": carry / 2}, "phase": "train"})

    _, packed = jax.lax.scan(step, 0, jnp.arange(4))
    assert packed.unpack()["nested"]["half"].tolist() == [0, 0, 0.5, 1.5]
    with MetricsLogger(tmp_path / "metrics.jsonl") as logger:
        logger.write_batch(packed)
        logger.write_batch({"run": "inside", "all": packed})
        with pytest.raises(ValueError, match=r"stacked to shape \(4,\).*write_batch"):
            logger.write(packed)
        with pytest.raises(ValueError, match=r"'all'.*stacked to shape \(4,\).*write_batch"):
            logger.write({"all": packed})
    records = read_metrics(tmp_path / "metrics.jsonl")
    expected = [
        {"nested": {"half": half}, "phase": "train", "step": step}
        for step, half in enumerate([0.0, 0.0, 0.5, 1.5])
    ]
    assert [{name: record[name] for name in expected[0]} for record in records[:4]] == expected
    assert [record["all"] for record in records[4:]] == expected


def test_it_works_through_vmap_and_cond_and_compiles_once():
    traces = []

    @jax.jit
    @jax.vmap
    def step(x):
        traces.append(x)
        return jax.lax.cond(
            x > 1, lambda: pack({"a": x, "b": True}), lambda: pack({"b": False, "a": -x})
        )

    for scale in range(3):
        packed = step(scale * jnp.arange(3.0))
        assert packed.words.shape[0] == 3
    assert len(traces) == 1
    assert packed.unpack()["a"].tolist() == [0, 2, 4]
    assert packed.unpack()["b"].tolist() == [False, True, True]


def test_a_packed_value_may_stand_inside_a_record_and_is_a_snapshot(tmp_path):
    packed = jax.jit(pack)({"loss": 0.25, "many": jnp.arange(3)})
    with MetricsLogger(tmp_path / "metrics.jsonl") as logger:
        logger.write({"step": 1, "train": packed})
        packed.words.delete()
        with pytest.raises(ValueError, match=r"'train'.*deleted or donated"):
            logger.write({"step": 2, "train": packed})
        with pytest.raises(ValueError, match=r"what was packed.*deleted or donated"):
            logger.write(packed)
    (record,) = read_metrics(tmp_path / "metrics.jsonl")
    assert record["train"] == {"loss": 0.25, "many": [0, 1, 2]}


def test_inside_jit_write_says_what_to_do_instead(tmp_path):
    with MetricsLogger(tmp_path / "metrics.jsonl") as logger:

        @jax.jit
        def step(x):
            logger.write(pack({"loss": x}))

        with pytest.raises(TypeError, match=r"tracer.*logger\.emit"):
            step(1.0)


@pytest.mark.parametrize(
    ("metrics", "kind", "message"),
    [
        ([1.0], TypeError, r"mapping of names to scalars.*\[1.0\]"),
        ({"a": {1: 2.0}}, TypeError, "name in 'a' is a string, not 1"),
        ({"a": {"b": 1 + 2j}}, TypeError, r"'a\.b'.*\(1\+2j\)"),
        ({"a": jnp.complex64(1)}, TypeError, "'a'.*complex64"),
        ({"a": jax.random.key(0)}, TypeError, r"'a'.*jax\.random\.key_data"),
        ({"a": [1.0, 2.0]}, TypeError, r"'a'.*\[1.0, 2.0\]"),
        ({"a": jnp.zeros(0)}, TypeError, r"'a'.*empty.*\(0,\)"),
        ({"a": np.int64(2**40)}, TypeError, r"'a'.*1099511627776.*int32.*jax_enable_x64"),
        ({"a": 2**40}, OverflowError, "'a'.*1099511627776"),
        ({"a": "text"}, ValueError, "no number to pack in {'a': 'text'}"),
    ],
)
def test_what_cannot_be_packed_is_refused_by_name(metrics, kind, message):
    with pytest.raises(kind, match=message):
        pack(metrics)


def test_what_is_packed_already_is_refused():
    with pytest.raises(TypeError, match=r"'inner'.*Packed"):
        pack({"inner": pack({"a": 1})})


def test_importing_the_name_does_not_import_jax():
    script = (
        "import sys; from vibe_rl.metrics import MetricsLogger, pack; print('jax' in sys.modules)"
    )
    assert subprocess.check_output([sys.executable, "-c", script], text=True) == "False\n"


def test_it_tells_what_it_holds():
    packed = pack({"loss": 1.0})
    assert isinstance(packed, Packed)
    assert "loss" in repr(packed)
