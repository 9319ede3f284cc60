"""Many runs as one table, and tables as frames."""

import math

import duckdb
import numpy as np
import polars as pl
import pytest

from vibe_rl.metrics import MetricsLogger, load_runs, read_columns, to_pandas, to_polars
from vibe_rl.run_dir import RunDir


@pytest.fixture
def runs(tmp_path):
    made = []
    for nth, name in enumerate(("ppo", "ppo", "dqn")):
        run = RunDir(run_id=f"{name}_2026021{nth}_000000", base_dir=tmp_path)
        config = {"lr": 0.1**nth, "net": {"width": 64}, "seed": nth + 10, "none": None}
        run.save_config(config if nth < 2 else {"lr": "auto"})
        with MetricsLogger(run) as logger:
            for step in range(nth + 1):
                logger.write(
                    {"step": step, "return": float(step), **({"q": 1} if nth == 2 else {})}
                )
        made.append(run)
    RunDir("ppo", tmp_path)  # has logged nothing
    return made


def test_a_table_has_the_run_the_seed_and_the_config_of_each_record(tmp_path, runs):
    table = load_runs(tmp_path)
    ids = [run.run_id for run in runs]
    assert table["run"].tolist() == [ids[0], ids[1], ids[1], *ids[2:] * 3]
    np.testing.assert_array_equal(table["seed"], [10, 11, 11, *[math.nan] * 3])
    assert table["config/lr"].tolist() == [1.0, 0.1, 0.1, "auto", "auto", "auto"]
    assert table["config/net/width"].tolist()[:3] == [64, 64, 64]
    assert table["return"].tolist() == [0, 0, 1, 0, 1, 2]
    np.testing.assert_array_equal(table["q"], [math.nan] * 3 + [1] * 3)
    assert {len(column) for column in table.values()} == {6}


def test_runs_are_chosen_by_pattern_and_fields_by_name(tmp_path, runs):
    table = load_runs(tmp_path, "ppo_*", columns=["return"])
    assert set(table) == {
        "run",
        "seed",
        "return",
        *(f"config/{n}" for n in ("lr", "net/width", "seed")),
    }
    assert table["seed"].tolist() == [10, 11, 11]
    assert load_runs(tmp_path, "x*") == {"run": pytest.approx(np.empty(0))}
    assert list(load_runs(tmp_path / "none")) == ["run"]
    with pytest.raises(TypeError, match=r"\['return'\]"):
        load_runs(tmp_path, columns="return")
    with pytest.raises(ValueError, match=r"no record of 4 runs has 'retrun'; near it: return, run"):
        load_runs(tmp_path, columns=["step", "retrun"])


def test_seeds_of_the_records_come_before_the_configs(tmp_path):
    run = RunDir("vmapped", tmp_path)
    run.save_config({"seed": 0, "num_seeds": 2})
    with MetricsLogger(run) as logger:
        logger.write_batch({"step": [0, 0], "seed": [4, 5]})
    assert load_runs(tmp_path)["seed"].tolist() == [4, 5]


@pytest.mark.parametrize(
    ("seed", "own", "expected"),
    [
        (3, [None, 7], [3, 7]),
        (3, [None, "x"], [3.0, "x"]),
        ("a", [7, None], [7.0, "a"]),
        (None, [None, 7], [math.nan, 7.0]),
    ],
)
@pytest.mark.parametrize("columns", [None, ["run", "config/seed"]])
def test_what_is_said_of_a_run_holds_for_each_of_its_records(
    tmp_path, columns, seed, own, expected
):
    run = RunDir("mixed", tmp_path)
    run.save_config({"seed": seed} if seed else {})
    with MetricsLogger(run) as logger:
        for each in own:
            logger.write(
                {"run": "own", "config/seed": -1} | ({} if each is None else {"seed": each})
            )
    table = load_runs(tmp_path, columns=columns)
    assert table["run"].tolist() == [run.run_id] * 2
    assert table["config/seed"].tolist() == [seed or -1] * 2
    assert str(table["seed"].tolist()) == str(expected)


@pytest.mark.parametrize("text", ["[1]", "null", '{"lr": {"_nonfinite": [1]}}'])
def test_a_config_that_is_none_hides_no_run(tmp_path, runs, text):
    (runs[0].root / "config.json").write_text(text)
    table = load_runs(tmp_path, columns=["return"])
    assert len(table["run"]) == 6
    np.testing.assert_array_equal(table["seed"], [math.nan, 11, 11, *[math.nan] * 3])


def test_frames_hold_the_columns(tmp_path, runs):
    path = tmp_path / "metrics.jsonl"
    with MetricsLogger(path) as logger:
        logger.write({"step": 0, "loss": math.nan, "note": "x", "runs": [1, 2], "odd": 1})
        logger.write({"step": 1, "done": True, "odd": "a"})
    columns = read_columns(path)
    frame = to_pandas(path)
    assert list(frame) == list(columns)
    assert frame["step"].dtype == np.int64
    assert math.isnan(frame["loss"][0])
    assert frame["note"].tolist()[0] == "x"
    frame = to_polars(columns)
    assert frame.columns == list(columns)
    assert frame["step"].dtype == pl.Int64
    assert frame["note"].to_list() == ["x", None]
    assert frame["runs"].to_list() == [[1, 2], None]
    assert frame["odd"].to_list() == [1.0, "a"]
    assert to_pandas(load_runs(tmp_path)).groupby("run")["return"].max().tolist() == [2, 0, 1]
    assert to_polars(runs[0]).height == 1


def test_duckdb_reads_runs_by_a_glob(tmp_path, runs, monkeypatch):
    monkeypatch.chdir(tmp_path)
    last = duckdb.sql("""
        select parse_path(filename)[-3] as run, max_by("return", step) as last
        from read_json('*/logs/metrics.jsonl', format='newline_delimited',
                       filename=true, union_by_name=true, sample_size=-1)
        group by run order by run
    """).fetchall()
    assert dict(last) == {run.run_id: float(nth) for nth, run in enumerate(runs)}
