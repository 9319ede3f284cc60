import collections
import dataclasses
import datetime as dt
import enum
import json
import math
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vibe_rl.config_json import decode_config, encode_config


def round_trip(config):
    return decode_config(encode_config(config))


class Algo(enum.Enum):
    PPO = "ppo"


class Level(enum.IntEnum):
    HIGH = 3


class Colour(enum.StrEnum):
    RED = "red"


class Window(NamedTuple):
    low: int
    high: float


class WithToDict:
    def to_dict(self):
        return {"nested": Algo.PPO}


@dataclasses.dataclass(frozen=True)
class Optimizer:
    lr: float = 3e-4
    betas: tuple[float, float] = (0.9, 0.999)


@dataclasses.dataclass(frozen=True)
class Config:
    algo: Algo = Algo.PPO
    optimizer: Optimizer = Optimizer()
    data: Path = Path("data") / "x"
    hidden: tuple[int, ...] = (64, 64)
    clip: float = math.inf


names = st.text().filter("_nonfinite".__ne__)
numbers = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False)
plain_configs = st.dictionaries(
    names,
    st.recursive(
        st.none() | st.booleans() | numbers | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(names, inner),
        max_leaves=10,
    ),
)


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (None, None),
        (True, True),
        (0.1, 0.1),
        (2**64 - 1, 2**64 - 1),
        ("ünï/コード", "ünï/コード"),
        ((1, (2, [3])), [1, [2, [3]]]),
        ({8, 1}, [1, 8]),
        (frozenset({"b", "a"}), ["a", "b"]),
        (Algo.PPO, "ppo"),
        (Level.HIGH, 3),
        (Colour.RED, "red"),
        (Path("a/b"), "a/b"),
        (dt.date(2026, 2, 16), "2026-02-16"),
        (dt.datetime(2026, 2, 16, 14, tzinfo=dt.UTC), "2026-02-16T14:00:00+00:00"),
        (Window(1, 2.5), {"low": 1, "high": 2.5}),
        (Optimizer(), {"lr": 3e-4, "betas": [0.9, 0.999]}),
        (WithToDict(), {"nested": "ppo"}),
        (collections.OrderedDict(a={"b": Algo.PPO}), {"a": {"b": "ppo"}}),
        ({Colour.RED: 1, np.str_("x"): 2}, {"red": 1, "x": 2}),
        (np.float32(0.1), 0.1),
        (np.float16(0.1), 0.1),
        (np.float64(0.1), 0.1),
        (np.longdouble(0.5), 0.5),
        (np.int8(-3), -3),
        (np.uint64(2**64 - 1), 2**64 - 1),
        (np.bool_(True), True),
        (np.str_("x"), "x"),
        (np.datetime64("2026-02-16T14:30"), "2026-02-16T14:30"),
        (np.array([64]), [64]),
        (np.array([[1, 2], [3, 4]], np.float32) / 10, [[0.1, 0.2], [0.3, 0.4]]),
    ],
)
def test_what_a_value_becomes(value, plain):
    loaded = round_trip({"value": value})
    assert loaded == {"value": plain}
    assert type(loaded["value"]) is type(plain)


def test_jax_values_become_what_numpy_values_become():
    config = {"lr": jnp.float32(0.42), "n": jnp.int32(7), "on": jnp.array(True)}
    config |= {"half": jnp.bfloat16(0.5), "sizes": jnp.arange(3)}
    plain = {"lr": 0.42, "n": 7, "on": True, "half": 0.5, "sizes": [0, 1, 2]}
    assert repr(round_trip(config)) == repr(plain)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, np.float32("nan")], ids=repr)
def test_non_finite_numbers_come_back(value):
    text = encode_config({"clip": [value]})
    json.loads(text, parse_constant=pytest.fail)  # strict JSON all the same
    assert decode_config(text)["clip"] == pytest.approx([float(value)], nan_ok=True)


@pytest.mark.parametrize(
    ("config", "plain"),
    [
        (
            Config(),
            {
                "algo": "ppo",
                "optimizer": {"lr": 3e-4, "betas": [0.9, 0.999]},
                "data": "data/x",
                "hidden": [64, 64],
                "clip": math.inf,
            },
        ),
        ({"algo": "dqn", "lr": 1e-3}, {"algo": "dqn", "lr": 1e-3}),
        (WithToDict(), {"nested": "ppo"}),
        (Window(1, 2), {"low": 1, "high": 2}),
        ({}, {}),
    ],
)
def test_what_a_config_may_be(config, plain):
    assert round_trip(config) == plain


def test_what_was_loaded_can_be_saved_again():
    plain = round_trip(Config())
    assert round_trip(plain) == plain


@settings(deadline=None)
@given(plain_configs)
def test_plain_values_come_back_as_they_were(config):
    assert round_trip(config) == config


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[1]", "3", '"x"', "null", '{"a": {"_nonfinite": [1]}}'),
        *('{"a": {"_nonfinite": null}}', '{"a": {"_nonfinite": "x"}}'),
        '{"a":' + "[" * 1000 + "]" * 1000 + "}",
    ],
)
def test_text_that_is_no_config_is_a_value_error(text):
    with pytest.raises(ValueError, match=r"."):
        decode_config(text.encode())


def test_the_file_is_for_people_too():
    text = encode_config({"algo": "dqn", "net": {"hidden": 64}})
    assert text == b'{\n  "algo": "dqn",\n  "net": {\n    "hidden": 64\n  }\n}\n'


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"net": {"act": [len]}}, r"config\['net'\]\['act'\]\[0\] is <built-in function len>"),
        ({"cls": Optimizer}, r"config\['cls'\] is .* of type type"),
        ({"x": 1j}, r"config\['x'\] is 1j of type complex"),
        ({"x": b"raw"}, r"config\['x'\] is b'raw' of type bytes"),
        ({"seed": 2**64}, r"config\['seed'\] is 18446744073709551616: .*64-bit"),
        ({"name": "\ud800"}, r"config\['name'\] is .*surrogates"),
        ({"schedule": {0: 0.1}}, r"key 0 in config\['schedule'\] is no string; use '0'"),
        ({"_nonfinite": "x"}, r"key '_nonfinite' in config is reserved"),
        (Window(1, len), r"config\['high'\]"),
        ([1, 2], r"a config is .*; got list: \[1, 2\]"),
        (3, r"a config is .*; got int: 3"),
    ],
)
def test_what_it_cannot_hold_is_named(config, message):
    with pytest.raises(TypeError, match=message):
        encode_config(config)


def test_a_prng_key_is_named():
    with pytest.raises(TypeError, match=r"config\['key'\] can't be read as an array: .*PRNG"):
        encode_config({"key": jax.random.key(0)})


def test_a_tracer_is_named():
    def traced(lr):
        encode_config({"lr": lr})

    with pytest.raises(TypeError, match=r"config\['lr'\] can't be read"):
        jax.jit(traced)(1.0)
