"""Names and values that somebody might give: stored and read back, or refused at `write()`."""

import math
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from service_files import tensorboard_scalars, wandb_files, wandb_rows

from vibe_rl.metrics import MetricsLogger, TensorBoardBackend, WandbBackend, read_metrics

NAMES = [
    *("../../etc/passwd", "/", "a/b", "a.b", "", " ", ".", "..", "~", "$(touch pwned)", "`id`"),
    *("a\nb", "\r\n", "\0", "a\0b", "\t", "\x1b[31m", "\x7f", "\u2028", "\ufeff", "\u202e"),
    *("lambda", "λ", "👩‍🔬", "'; drop table runs; --", '"', "\\", "</script>", "{", "%s", "null"),
    *("__class__", "_timestamp", "_step", "wall_time ", "x" * 100_000),
]
NUMBERS = [
    *(2**63 - 1, -(2**63), 2**64 - 1, 0, -0.0, 5e-324, -5e-324, sys.float_info.min),
    *(sys.float_info.max, -sys.float_info.max, sys.float_info.epsilon, 1 + 2**-52, 1e22, 0.1 + 0.2),
    *(math.inf, -math.inf, math.nan, True, False),
    *(
        kind(limit)
        for kind in (np.float16, np.float32, np.float64)
        for limit in (np.finfo(kind).max, np.finfo(kind).min, np.finfo(kind).smallest_subnormal)
    ),
    *(
        kind(limit)
        for kind in (np.int8, np.uint8, np.int64, np.uint64)
        for limit in (np.iinfo(kind).min, np.iinfo(kind).max)
    ),
]


def round_trip(tmp_path, record, backends=()):
    path = tmp_path / "metrics.jsonl"
    with MetricsLogger(path, list(backends)) as logger:
        logger.write({"i": 0})
        logger.write(record)
        logger.write({"i": 1})
    before, stored, after = read_metrics(path, strict=True)
    assert (before["i"], after["i"]) == (0, 1)
    return stored


def test_any_name_is_stored_as_it_is_and_names_no_file(tmp_path):
    run = tmp_path / "outer" / "run"
    record = {name: place for place, name in enumerate(NAMES)}
    backend = TensorBoardBackend(run / "tensorboard")
    stored = round_trip(run, {**record, "nested": dict(record)}, [backend])
    assert {name: stored[name] for name in NAMES} == record
    assert stored["nested"] == record
    assert [entry.name for entry in (tmp_path / "outer").iterdir()] == ["run"]
    assert not any("pwned" in file.name for file in tmp_path.rglob("*"))
    assert len(tensorboard_scalars(run / "tensorboard")) == 2 * len(NAMES) + 2  # i, wall_time


class Named:
    def __init__(self, identity):
        self.identity = identity
        self.taken = []

    def log(self, record, step=None):
        self.taken.append(record["i"])

    def close(self): ...


@pytest.mark.parametrize("identity", [*NAMES[:4], "a\nb", "a\0b", "\ud800", "x" * 5_000, "*?[a]"])
def test_no_more_does_a_backend_s_identity(identity, tmp_path, caplog):
    run = tmp_path / "outer" / "run"
    for i in range(2):
        backend = Named(identity)
        with MetricsLogger(run / "metrics.jsonl", [backend]) as logger:
            logger.write({"i": i})
        assert backend.taken == [i]
    assert [entry.name for entry in (tmp_path / "outer").iterdir()] == ["run"]
    assert len(list(run.glob("metrics.*.cursor.json"))) == 1
    assert not caplog.text  # such as that the cursor, which holds the identity, can't be read


def test_wandb_takes_them_too_and_no_other_record_suffers(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    record = {name: place for place, name in enumerate(NAMES)}
    round_trip(tmp_path, record, [WandbBackend(mode="offline", dir=tmp_path)])
    (file,) = wandb_files(tmp_path / "wandb")
    rows = wandb_rows(file)
    assert [row["i"] for row in rows if "i" in row] == [0, 1]
    assert not any("pwned" in each.name for each in tmp_path.rglob("*"))


def test_any_number_is_read_back_as_it_was(tmp_path):
    stored = round_trip(tmp_path, {f"n{place}": number for place, number in enumerate(NUMBERS)})
    for place, number in enumerate(NUMBERS):
        got, kind = stored[f"n{place}"], type(number)
        if kind is np.float16 or kind is np.float32:
            assert kind(got) == number
        else:
            expected = number.item() if isinstance(number, np.generic) else number
            assert repr(got) == repr(expected)


@pytest.mark.parametrize("number", [2**64, -(2**63) - 1, 10**400, np.longdouble("1e4000"), 1j])
def test_a_number_that_no_reader_could_hold_is_refused_by_name(number, tmp_path):
    with MetricsLogger(tmp_path / "metrics.jsonl") as logger:
        with pytest.raises((ValueError, TypeError), match="big"):
            logger.write({"i": 0, "big": number})
        logger.write({"i": 1})
    assert [record["i"] for record in read_metrics(logger.path, strict=True)] == [1]


@pytest.mark.parametrize(
    "record", [{"a\ud800": 1}, {"bad": "a\udfff"}, {"bad": {"x\ud800": 1}}, {"bad": ["\ud800"]}]
)
def test_a_lone_surrogate_is_refused_by_name(record, tmp_path):
    with MetricsLogger(tmp_path / "metrics.jsonl") as logger:
        with pytest.raises(ValueError, match=r"bad|a\\ud800"):
            logger.write(record)
        logger.write({"i": 1})
    assert [record["i"] for record in read_metrics(logger.path, strict=True)] == [1]


def test_strings_of_ten_megabytes(tmp_path):
    text = '\n\0"λ\\' * 2_000_000
    stored = round_trip(tmp_path, {"text": text, text[:1_000_000]: 1})
    assert stored["text"] == text
    assert stored[text[:1_000_000]] == 1


def test_ten_thousand_metrics_in_a_record(tmp_path):
    record = {f"layer_{i}/grad_norm": np.float32(i) / 3 for i in range(10_000)}
    backend = TensorBoardBackend(tmp_path / "tensorboard")
    stored = round_trip(tmp_path, record, [backend])
    assert all(np.float32(stored[name]) == value for name, value in record.items())
    assert len(tensorboard_scalars(tmp_path / "tensorboard")) == 10_000 + 2


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text(max_size=30), JSON, max_size=6))
def test_whatever_it_is_it_is_read_back_or_refused(tmp_path_factory, record):
    path = tmp_path_factory.mktemp("any") / "metrics.jsonl"
    with MetricsLogger(path) as logger:
        try:
            logger.write({**record, "i": 0})
        except ValueError as error:
            assert "_nonfinite" in record, error
            return
    (got,) = read_metrics(path, strict=True)
    assert repr({**got, "wall_time": 0}) == repr({**record, "i": 0, "wall_time": 0})
