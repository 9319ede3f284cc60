"""Columns as arrays: what the records say, whichever engine reads them."""

import json
import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vibe_rl.metrics import MetricsLogger, read_columns, read_metrics
from vibe_rl.metrics.append import process_path
from vibe_rl.metrics.jsonl import encode
from vibe_rl.metrics.reading import polars_engine
from vibe_rl.metrics.reading.blocks import blocks_of

NAMES = ["step", "loss", "eval/return", "eval", 'quo"te', "späť"]
NUMBERS = st.integers(-(2**63), 2**64 - 1) | st.integers(-3, 3) | st.floats()
VALUES = NUMBERS | st.none() | st.booleans() | st.text(max_size=3) | st.lists(NUMBERS, max_size=2)
RECORDS = st.dictionaries(
    st.sampled_from(NAMES), VALUES | st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=2)
)
NUMERIC = st.dictionaries(st.sampled_from(NAMES), NUMBERS)
GARBAGE = st.sampled_from([b"\n", b"  \n", b'{"step":\n', b"[1]\n", b"3\n", b'{"loss":1}{}\n'])
FILES = st.tuples(
    st.lists((RECORDS | NUMERIC | st.just({"step": 1, "loss": 0.5})).map(encode) | GARBAGE),
    st.sampled_from([b"", b'{"step":7}', b'{"step":']),
).map(lambda parts: b"".join(parts[0]) + parts[1])


def read_by_orjson(path, columns):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(polars_engine, "is_installed", lambda: False)
        return read_columns(path, columns=columns)


def identical(left, right):
    return list(left) == list(right) and all(
        left[name].dtype == right[name].dtype
        and repr(left[name].tolist()) == repr(right[name].tolist())
        for name in left
    )


def flat(record, prefix=""):
    for name, value in record.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}/")
        elif value is not None:
            yield prefix + name, value


@given(FILES)
@pytest.mark.filterwarnings("ignore:.*not a record")
def test_a_column_is_what_the_records_hold_of_it_by_either_engine(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("run") / "metrics.jsonl"
    path.write_bytes(text)
    records = [dict(flat(record)) for record in read_metrics(path)]
    columns = read_columns(path)
    assert set(columns) == {name for record in records for name in record}
    for name, column in columns.items():
        expected = [record.get(name) for record in records]
        kinds = set(map(type, expected))
        if kinds <= {int, float, type(None)}:
            assert column.dtype.kind in ("f" if kinds != {int} else "iuf")
            np.testing.assert_array_equal(column, np.array(expected, float))
            if column.dtype.kind != "f":
                assert column.tolist() == expected
        else:
            assert column.dtype == (bool if kinds == {bool} else object)
            assert repr(column.tolist()) == repr(
                [float(each) if type(each) is int else each for each in expected]
            )
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(polars_engine, "BLOCK", 100)  # so that many blocks differ in kind
            one = read_columns(path, columns=[name])
        assert identical(one, {name: column})
        assert identical(read_by_orjson(path, [name]), {name: column})


def test_the_quick_engine_is_used_and_left_where_it_would_differ():
    assert polars_engine.is_installed()
    rows, parts = polars_engine.parse(b'{"a":1,"b":0.5}\n{"a":2}\n', ["a", "b", "c"])
    assert rows == 2
    assert parts["a"].values.tolist() == [1, 2]
    assert parts["b"].present.tolist() == [True, False]
    assert set(parts) == {"a", "b"}
    for block in (
        b'{"a":null,"_nonfinite":{"a":"nan"}}\n',
        b'{"a":1}\n{"a":\n',
        b'{"a":"x"}\n',
        b'{"a":{"b":1}}\n',
        b'{"a":18446744073709551615}\n',
        b'{"a":1}\n' * 100 + b'{"a":1.5}\n',
    ):
        assert polars_engine.parse(block, ["a"]) is None
    assert polars_engine.parse(b'{"a":{"b":1}}\n', ["a/b"]) is None


def test_the_kinds_of_columns(tmp_path):
    path = tmp_path / "metrics.jsonl"
    lines = [
        {"step": 0, "loss": math.nan, "n": 2**63, "done": False, "eval": {"return": 1.5}, "k": 1},
        {"step": 1, "loss": math.inf, "n": 1, "done": True, "note": "x", "half": True, "k": "a"},
        {"step": 2, "n": 2, "done": True, "late": 3, "runs": [1.0, math.nan], "k": [1]},
    ]
    path.write_bytes(b"".join(map(encode, lines)))
    columns = read_columns(path)
    kinds = {name: column.dtype.kind for name, column in columns.items()}
    assert {name for name in kinds if kinds[name] == "f"} == {"loss", "eval/return", "late"}
    assert {name for name in kinds if kinds[name] == "O"} == {"note", "half", "runs", "k"}
    assert (kinds["step"], kinds["n"], kinds["done"]) == ("i", "u", "b")
    assert columns["half"].tolist() == [None, True, None]
    assert columns["k"].tolist() == [1.0, "a", [1]]
    np.testing.assert_array_equal(columns["loss"], [math.nan, math.inf, math.nan])
    assert read_columns(path, columns=["late", "step"])["late"].tolist()[2] == 3.0


def test_a_schema_that_changes_after_many_blocks(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with MetricsLogger(path) as logger:
        logger.write_batch({"step": range(20_000), "loss": np.zeros(20_000)})
        logger.write_batch({"step": range(20_000, 30_000), "loss": np.ones(10_000, int)})
        logger.write_batch({"step": range(30_000, 40_000), "reward": np.ones(10_000)})
        logger.write({"step": 40_000, "loss": -math.inf})
    columns = read_columns(path, columns=["step", "loss", "reward"])
    assert columns["step"].dtype == np.int64
    assert (columns["step"] == np.arange(40_001)).all()
    assert np.isnan(columns["loss"][30_000:40_000]).all()
    assert columns["loss"][[0, 20_000, 40_000]].tolist() == [0.0, 1.0, -math.inf]
    assert np.isnan(columns["reward"]).sum() == 30_001
    assert identical(columns, read_by_orjson(path, list(columns)))


def test_the_files_of_a_job_are_merged(tmp_path):
    path = tmp_path / "metrics.jsonl"
    for process in range(2):
        with MetricsLogger(process_path(path, process)) as logger:
            logger.write({"process": process, "wall_time": 10.0 - 20 * process})
    assert read_columns(path)["process"].tolist() == [r["process"] for r in read_metrics(path)]
    assert read_columns(path, columns=["process"])["process"].tolist() == [1, 0]


def test_a_field_that_nothing_has_is_an_error_that_names_what_there_is(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert read_columns(path) == {}
    assert read_columns(path, columns=["loss"])["loss"].shape == (0,)
    path.write_text(json.dumps({"step": 1, "eval": {"return": 2.0}}) + "\n")
    with pytest.raises(ValueError, match=r"has 'ret'; near it: eval/return$"):
        read_columns(path, columns=["ret"])
    with pytest.raises(TypeError, match=r"\['loss'\]"):
        read_columns(path, columns="loss")


@settings(max_examples=30)
@given(st.lists(st.integers(0, 90).map(lambda n: b"x" * n), max_size=30), st.integers(1, 64))
def test_blocks_hold_every_line_once(tmp_path_factory, lines, size):
    path = tmp_path_factory.mktemp("blocks") / "file"
    text = b"\n".join(lines)
    path.write_bytes(text)
    with path.open("rb") as file:
        blocks = list(blocks_of(file, size))
    assert b"".join(block.text for block in blocks) == text
    assert all(block.text.endswith(b"\n") for block in blocks[:-1])
    assert all(text[block.byte :].startswith(block.text) for block in blocks)


@pytest.mark.parametrize("engine", ["orjson", "polars"])
def test_a_large_file_is_read_in_little_memory(tmp_path, monkeypatch, engine):
    monkeypatch.setattr(polars_engine, "is_installed", lambda: engine == "polars")
    monkeypatch.setattr(polars_engine, "BLOCK", 1 << 18)
    path = tmp_path / "metrics.jsonl"
    count = 16_000
    with path.open("w") as file:
        file.writelines(
            json.dumps({"step": n, "loss": n / 2, "text": "x" * 2000}) + "\n" for n in range(count)
        )
    import polars as pl  # noqa: F401 - which takes 10 MB itself

    tracemalloc.start()
    try:
        columns = read_columns(path, columns=["step", "loss"])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(columns["step"]) == count
    result = sum(column.nbytes for column in columns.values())
    assert peak < 4 * result + (4 << 20) < path.stat().st_size / 5
