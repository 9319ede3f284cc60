"""The first, the last, and a sample of the records of a file that may be large."""

import numpy as np
import pytest

from vibe_rl.metrics import MetricsLogger, read_metrics
from vibe_rl.metrics.reading.tail import head_records, sample_records, tail_records


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    path = tmp_path_factory.mktemp("large") / "metrics.jsonl"
    with MetricsLogger(path) as logger:
        logger.write_batch(
            {"step": np.arange(30_000), "loss": np.random.default_rng(0).random(30_000)}
        )
    return path


def test_head_and_tail_are_the_records_at_either_end(large):
    records = read_metrics(large)
    for n in (0, 1, 7, 2_000, 29_999, 30_000, 40_000):
        assert head_records(large, n) == records[:n]
        assert tail_records(large, n).records == records[max(len(records) - n, 0) :]


def test_the_tail_passes_over_torn_corrupt_and_blank_lines(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"a":1}\n{"a":\n\n{"a":null,"_nonfinite":{"a":"inf"}}\n{"a":3')
    assert tail_records(path, 5).records == head_records(path, 5)
    assert head_records(path, 5) == [{"a": 1}, {"a": float("inf")}]
    path.write_bytes(b'{"a":"' + b"x" * 300_000 + b'"}\n{"a":2}\n')
    assert [len(str(record["a"])) for record in tail_records(path, 2).records] == [300_000, 1]
    assert tail_records(tmp_path / "none", 5).records == head_records(tmp_path / "none", 5) == []


def test_a_sample_is_spread_over_all_of_the_file_and_has_its_ends(large):
    sample = sample_records(large, 400_000)
    steps = np.array([record["step"] for record in sample.records])
    assert 0.1 < sample.fraction < 0.5
    assert (steps[0], steps[-1]) == (0, 29_999)
    assert (np.diff(steps) > 0).all()
    assert np.diff(steps).max() < 10_000
    assert sample.end == large.stat().st_size
    assert not sample_records(large, 400_000, start=sample.end, file_id=sample.file_id).records


def test_a_small_file_is_its_own_sample(large):
    sample = sample_records(large)
    assert sample.fraction == 1.0
    assert sample.records == read_metrics(large)


def test_samples_go_on_where_the_last_one_ended(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert sample_records(path).records == []
    path.write_bytes(b'{"a":1}\n{"a":2')
    first = sample_records(path)
    assert first.records == [{"a": 1}]
    with path.open("ab") as file:
        file.write(b'2}\n{"a":3}\n')
    second = sample_records(path, start=first.end, file_id=first.file_id)
    assert second.records == [{"a": 22}, {"a": 3}]
    assert not second.anew
    path.write_bytes(b'{"a":9}\n')
    third = sample_records(path, start=second.end, file_id=second.file_id)
    assert third.anew
    assert third.records == [{"a": 9}]
    other = tmp_path / "other"
    other.write_bytes(b'{"a":1}\n{"a":8}\n')
    other.replace(path)
    assert sample_records(path, start=third.end, file_id=third.file_id).anew


@pytest.mark.parametrize("most_bytes", [0, 100, 2_000, 16_384, 300_000])
@pytest.mark.parametrize("torn", ["", '{"i":99' + "y" * 3_000])
def test_a_sample_of_lines_of_any_length_has_the_ends_and_nothing_twice(tmp_path, most_bytes, torn):
    path = tmp_path / "metrics.jsonl"
    lengths = [0, 10, 100, 5_000, 70_000, 3, 2_000, 40_000, 1] * 9
    whole = "".join(f'{{"i":{i},"t":"{"x" * n}"}}\n' for i, n in enumerate(lengths))
    path.write_text(whole + torn)
    sample = sample_records(path, most_bytes)
    found = [record["i"] for record in sample.records]
    assert found == sorted(set(found))
    assert (found[0], found[-1]) == (0, len(lengths) - 1)
    assert sample.end == len(whole)
