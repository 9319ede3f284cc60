"""The file format: what was written comes back, from our reader and from everybody else's."""

import gc
import json
import math
import shutil
import subprocess

import duckdb
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from vibe_rl.metrics import MetricsLogger, iter_metrics, read_metrics
from vibe_rl.metrics.host import host_record
from vibe_rl.metrics.jsonl import decode, decode_lines, encode
from vibe_rl.run_dir import RunDir

DTYPES = [
    *(np.dtype(kind) for kind in ("?", "b", "h", "i", "q", "B", "H", "I", "Q", "e", "f", "d")),
    *(np.dtype(kind) for kind in (">e", ">f", ">d", ">q")),
    *(
        np.dtype(getattr(ml_dtypes, name))
        for name in ("bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3b11fnuz")
    ),
]


def bits(dtype, shape):
    """Arrays of any bit pattern: subnormals, NaNs, infinities and negative zeros included."""
    size = math.prod(shape) * dtype.itemsize
    most = 1 if dtype.kind == "b" else 255

    def array(numbers):
        return np.array(numbers, np.uint8).view(dtype).reshape(shape)

    return st.lists(st.integers(0, most), min_size=size, max_size=size).map(array)


ARRAYS = st.tuples(
    st.sampled_from(DTYPES), npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)
).flatmap(lambda of: bits(*of))
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(),
    st.text(),
    st.sampled_from(DTYPES).flatmap(lambda dtype: bits(dtype, ())).map(lambda array: array[()]),
)
NAMES = st.text().filter(lambda name: name != "_nonfinite")
VALUES = st.recursive(
    SCALARS | ARRAYS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
RECORDS = st.dictionaries(NAMES, VALUES, max_size=6)
CORNERS = {
    "scripts": "δοκιμή, проба, 試験, परीक्षा, اختبار, 🧪",
    "controls": "".join(map(chr, range(32))) + '"\\/\x7f\u0085\u2028\u2029\ufeff\U0010ffff',
    "": [2**64 - 1, -(2**63), -0.0, 5e-324, math.nan, {"null": [None, "null", -math.inf]}],
    "_nonfinite inside": {"_nonfinite": [math.inf, None]},
}


def same(read, written):
    """Whether `read` is what the file makes of `written`, to the last bit of its dtype."""
    if isinstance(written, dict):
        return list(read) == list(written) and all(same(read[k], written[k]) for k in written)
    if isinstance(written, np.ndarray):
        return same(read, written.reshape(())[()] if written.size == 1 else nested(written))
    if isinstance(written, list):
        return type(read) is list and len(read) == len(written) and all(map(same, read, written))
    if isinstance(written, float | np.generic):
        dtype = np.result_type(written)
        kind = {"b": bool, "i": int, "u": int}.get(dtype.kind, float)
        back, there = np.array(read, dtype), np.array(written, dtype)
        with np.errstate(invalid="ignore"):  # a signalling NaN is one, too
            both_nan = np.isnan(back) and np.isnan(there)
        return type(read) is kind and (both_nan or back.tobytes() == there.tobytes())
    return type(read) is type(written) and read == written


def nested(array):
    return [nested(row) for row in array] if array.ndim else array[()]


@given(RECORDS)
@example(CORNERS)
@example({"x": np.array([[0.42], [0.1], [7]], ml_dtypes.bfloat16)})
def test_encode_and_decode_are_each_others_inverse(record):
    line = encode(host_record(record))
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert same(decode(line), record)
    json.loads(line, parse_constant=pytest.fail)  # no bare NaN, which is no JSON


@settings(max_examples=settings().max_examples // 4)
@given(st.lists(RECORDS.filter(lambda record: "wall_time" not in record), max_size=5))
def test_read_metrics_gives_back_what_a_logger_wrote(tmp_path_factory, records):
    path = tmp_path_factory.mktemp("run") / "metrics.jsonl"
    with MetricsLogger(path) as logger:
        for record in records:
            logger.write(record)
    read = read_metrics(path, strict=True)
    assert all(record.pop("wall_time") >= 0 for record in read)
    assert same(read, records)


def test_a_float32_is_stored_with_its_own_digits():
    for number in (np.float32(0.42), jnp.array(0.42), np.array([0.42], np.float32)):
        assert encode(host_record({"loss": number})) == b'{"loss":0.42}\n'
    assert encode(host_record({"most": np.float16(65024)})) == b'{"most":65020.0}\n'
    halves = {"half": np.float16(0.42), "brain": jnp.bfloat16(0.42), "tiny": jnp.float8_e4m3fn(0.1)}
    assert encode(host_record(halves)) == b'{"half":0.42,"brain":0.42,"tiny":0.1}\n'


def test_non_finite_numbers_are_null_and_marked_beside():
    record = {"loss": math.nan, "n": None, "runs": [[1.0, math.inf], [2.0]], "q": {"a": -math.inf}}
    assert json.loads(encode(record)) == {
        "loss": None,
        "n": None,
        "runs": [[1.0, None], [2.0]],
        "q": {"a": None},
        "_nonfinite": {"loss": "nan", "runs": [[None, "inf"], None], "q": {"a": "-inf"}},
    }
    assert b"_nonfinite" not in encode({"null": "null", "n": None})


def test_a_metric_called_nonfinite_is_refused():
    with pytest.raises(ValueError, match="'_nonfinite' is the format's own field"):
        encode({"_nonfinite": {}})


@pytest.mark.parametrize(
    "marks",
    [
        *(1, "nan", None, [], ["nan"], {"b": "nan"}, {"a": "x"}, {"a": []}, {"a": ["inf"]}),
        *({"a": {"a": "nan"}}, {"a": [None, 3, "nan", "inf"]}, {"n": "nan "}, {"n": ["nan"]}),
    ],
)
def test_marks_that_fit_nothing_do_nothing(marks):
    values = {"a": [1.5, "null", None], "n": None}
    assert decode(json.dumps({**values, "_nonfinite": marks}).encode()) == values


def test_only_null_is_ever_replaced():
    line = b'{"a":0.5,"b":[null,2],"_nonfinite":{"a":"nan","b":["inf","inf"]}}'
    assert decode(line) == {"a": 0.5, "b": [math.inf, 2]}


def test_nesting_beyond_measure_is_a_corrupt_line_not_a_crash(tmp_path):
    deep = b"[" * 1_000 + b"null" + b"]" * 1_000
    marks = deep.replace(b"null", b'"nan"')
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"a":%b,"_nonfinite":{"a":%b}}\n{"a":1}\n' % (deep, marks))
    with pytest.warns(UserWarning, match="line 1"):
        assert read_metrics(path) == [{"a": 1}]


def test_a_missing_file_has_no_records(tmp_path):
    assert read_metrics(tmp_path / "metrics.jsonl") == []
    assert list(iter_metrics(tmp_path / "none" / "metrics.jsonl")) == []


def test_a_run_directory_stands_for_its_metrics(tmp_path):
    run = RunDir("x", tmp_path)
    assert read_metrics(run) == read_metrics(run.root) == []
    run.log_path().write_bytes(b'{"loss":1}\n')
    assert read_metrics(run) == read_metrics(str(run.root)) == [{"loss": 1}]


@pytest.mark.parametrize("was_enabled", [True, False])
def test_no_garbage_is_looked_for_while_records_become_more(tmp_path, was_enabled):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"loss":0.5}\n' * 20_000 + b"no record\n")
    looks = []

    def look(phase, info):
        looks.append(phase)

    gc.callbacks.append(look)
    (gc.enable if was_enabled else gc.disable)()
    try:
        with pytest.raises(ValueError, match="line 20001"):
            read_metrics(path, strict=True)
        # Of some thirty: what comes before and after may start one. Each is two calls.
        assert len(looks) <= 4 * was_enabled
        assert gc.isenabled() == was_enabled
    finally:
        gc.callbacks.remove(look)
        gc.enable()


def test_blank_lines_and_a_torn_last_line_are_passed_over(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'\n{"a":1}\n\n  \n{"a":2}\n{"a":3')
    assert read_metrics(path, strict=True) == [{"a": 1}, {"a": 2}]
    path.write_bytes(b'{"a":1}\n{"a":2}')  # whole: only its newline is missing
    assert read_metrics(path, strict=True) == [{"a": 1}, {"a": 2}]


def test_torn_lines_that_would_make_records_together_are_none():
    torn = b'{"a":1\n"b":2}\n'
    assert decode_lines(torn, 2) is None
    assert decode_lines(b'{"a":1}\n{"b":2}\n', 2) == [{"a": 1}, {"b": 2}]


@pytest.mark.parametrize("line", [b'{"a":', b"[1]", b"nan", b"\x00\x00", b'"\xff"', b'{"a":NaN}'])
def test_a_corrupt_line_is_passed_over_with_a_warning_that_says_where(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"a":1}\n' + line + b'\n{"a":2}\n')
    with pytest.warns(UserWarning, match=r"metrics\.jsonl, line 2: not a record") as caught:
        assert read_metrics(path) == [{"a": 1}, {"a": 2}]
    assert len(caught) == 1
    records = iter_metrics(path, strict=True)
    assert next(records) == {"a": 1}
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 2"):
        next(records)


@pytest.fixture(scope="module")
def varied(tmp_path_factory):
    """A file with everything in it that has ever upset a reader."""
    path = tmp_path_factory.mktemp("varied") / "metrics.jsonl"
    with MetricsLogger(path) as logger:
        for loss in (0.5, math.nan, math.inf, -math.inf, np.float16(0.42), jnp.bfloat16(0.1)):
            logger.write({"loss": loss})
        logger.write({"step": 2**63 - 1, "low": -(2**63), "loss": jnp.array(0.25)})
        logger.write({"note": CORNERS["scripts"], "eval": {"return": 1.5, "runs": [1.0, math.nan]}})
        logger.write({"grads": np.arange(6, dtype=np.float32).reshape(2, 3), "done": True})
        logger.write({"loss": 2})
    return path


LOSSES = [0.5, None, None, None, 0.42, 0.1, 0.25, None, None, 2]


def test_pandas_sees_a_numeric_loss(varied):
    frame = pd.read_json(varied, lines=True)
    assert frame["loss"].dtype == np.float64
    assert [None if math.isnan(x) else x for x in frame["loss"]] == LOSSES
    assert CORNERS["scripts"] in set(frame["note"])


def test_polars_sees_a_numeric_loss(varied):
    frame = pl.read_ndjson(varied, infer_schema_length=None)
    assert frame["loss"].dtype == pl.Float64
    assert frame["loss"].to_list() == LOSSES
    assert frame["step"].max() == 2**63 - 1
    assert frame["low"].min() == -(2**63)
    assert frame["grads"].to_list()[8] == [[0, 1, 2], [3, 4, 5]]


def test_duckdb_sees_a_numeric_loss(varied):
    lines = duckdb.read_json(str(varied), format="newline_delimited", sample_size=-1)
    assert lines.select("typeof(loss)").distinct().fetchall() == [("DOUBLE",)]
    assert [row[0] for row in lines.select("loss").fetchall()] == LOSSES
    assert lines.select("max(step), min(low)").fetchall() == [(2**63 - 1, -(2**63))]
    assert lines.select('eval."return"').fetchall()[7] == (1.5,)


@pytest.mark.skipif(shutil.which("jq") is None, reason="jq is not installed")
def test_jq_sees_a_numeric_loss(varied):
    out = subprocess.run(["jq", "-c", ".loss", varied], capture_output=True, check=True)
    assert [json.loads(line) for line in out.stdout.splitlines()] == LOSSES
    command = ["jq", "-r", "select(.note).note", varied]
    out = subprocess.run(command, capture_output=True, check=True, text=True)
    assert out.stdout.strip() == CORNERS["scripts"]


def test_a_line_that_is_completed_while_it_is_read_is_not_taken_for_two(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"a":1}\n{"a":')
    records = iter_metrics(path, strict=True)
    assert next(records) == {"a": 1}
    # The file's buffer ends in the torn line: what is appended now would come as a line of its own.
    with path.open("ab") as file:
        file.write(b'2}\n{"a":3}\n')
    assert all(record["a"] in (2, 3) for record in records)
