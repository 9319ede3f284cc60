"""Files that something else has spoilt: readers and loggers survive, and keep all they can."""

import json
import warnings

from hypothesis import given, settings
from hypothesis import strategies as st

from vibe_rl.metrics import MetricsLogger, read_metrics

LINES = [
    b'{"n":%d,"loss":null,"text":"\xce\xbb","eval":[1.5,{"a":null}],'
    b'"_nonfinite":{"loss":"nan","eval":[null,{"a":"-inf"}]}}\n' % n
    for n in range(20)
]
WHOLE = b"".join(LINES)


@st.composite
def spoilt(draw):
    """A metrics file with bytes changed, cut out or put in."""
    data = bytearray(WHOLE)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        stop = start + draw(st.integers(0, 200))
        data[start:stop] = draw(st.binary(max_size=20) | st.just(bytes(stop - start)))
    return bytes(data[: draw(st.integers(0, len(data)))] if draw(st.booleans()) else data)


def read(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return read_metrics(path)


@settings(max_examples=settings().max_examples // 2)
@given(spoilt())
def test_a_spoilt_file_is_read_and_appended_to(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("spoilt") / "metrics.jsonl"
    path.write_bytes(data)
    before = read(path)
    assert all(isinstance(record, dict) for record in before)
    untouched = {n for n, line in enumerate(LINES) if b"\n" + line in b"\n" + data}
    assert untouched <= {record.get("n") for record in before if isinstance(record.get("n"), int)}

    with MetricsLogger(path) as logger:
        logger.write({"n": "later"})
    assert [repr(record) for record in read(path)[:-1]] == list(map(repr, before))
    assert read(path)[-1]["n"] == "later"


def test_a_line_of_many_megabytes(tmp_path, scale):
    path = tmp_path / "metrics.jsonl"
    text = "x" * scale(10_000_000, 100_000_000)
    path.write_bytes(b'{"n":0}\n' + json.dumps({"text": text}).encode() + b'\n{"n":1}\n')
    with MetricsLogger(path) as logger:
        logger.write({"n": 2})
    records = read_metrics(path, strict=True)
    assert [record.get("n") for record in records] == [0, None, 1, 2]
    assert records[1]["text"] == text
