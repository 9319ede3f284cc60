"""Records found by the names of their fields, from either end of a file."""

import numpy as np
import pytest

from vibe_rl.metrics.jsonl import encode
from vibe_rl.metrics.reading import search
from vibe_rl.metrics.reading.fields import flat, metrics_of

RECORDS = [
    {"a/b": 1},
    {"a": {"b": 2}},
    {"a": {"b/c": None}},
    {"a": {}, "c": True},
    {"a/b": {"c": float("nan")}},
    {"c": "a/b"},
    {'say "長い"\n': 3, "text": "x" * 300},
    {"a": 4, "b": 5},
]


@pytest.mark.parametrize("block", [1, 64, 1 << 20])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("numeric", [False, True])
def test_the_first_and_the_last_record_are_those_that_reading_all_finds(
    block, last, numeric, tmp_path, monkeypatch
):
    monkeypatch.setattr(search, "_BLOCK", block)
    path, chance = tmp_path / "metrics.jsonl", np.random.default_rng(block)
    names = {name for record in RECORDS for name, _ in flat(record)} | {"n"}
    for length in range(12):
        records = [{"n": n, **RECORDS[chance.integers(len(RECORDS))]} for n in range(length)]
        path.write_bytes(b'{"torn\n'.join(map(encode, records)) + b'\n{"a":6,"b')
        expected = {}
        for record in records if last else reversed(records):
            there = metrics_of(record) if numeric else dict(flat(record))
            expected |= dict.fromkeys(there.keys(), record["n"])
        found = search.find_records(path, [*names, "none", "\udcff"], numeric=numeric, last=last)
        assert {name: record["n"] for name, record in found.items()} == expected
    assert search.find_records(tmp_path / "none", names, last=last) == {}
