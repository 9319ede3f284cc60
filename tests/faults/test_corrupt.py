"""Files that something else has spoilt: readers and loggers survive, and keep all they can."""

import contextlib
import json
import re
import warnings

from hypothesis import given, settings
from hypothesis import strategies as st

from vibe_rl.metrics import MetricsLogger, iter_metrics, read_columns, read_metrics
from vibe_rl.metrics.alarms import alarms_path
from vibe_rl.metrics.append import writers_path
from vibe_rl.metrics.backends.wandb import _saved_id
from vibe_rl.metrics.reading.nonfinite import first_nonfinite

LINES = [
    b'{"step":%d,"n":%d,"loss":null,"text":"\xce\xbb","eval":[1.5,{"a":null}],'
    b'"_nonfinite":{"loss":"nan","eval":[null,{"a":"-inf"}]}}\n' % (n, n)
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
    for place in draw(st.lists(st.integers(0, max(len(data) - 1, 0)), max_size=20)):
        if data:
            data[place] ^= 1 << draw(st.integers(0, 7))
    return bytes(data[: draw(st.integers(0, len(data)))] if draw(st.booleans()) else data)


def read(path):
    return quietly(read_metrics, path)


def quietly(reader, path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        read = reader(path)
        return list(read) if reader is iter_metrics else read


@settings(max_examples=settings().max_examples // 2)
@given(spoilt())
def test_a_spoilt_file_is_read_and_appended_to(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("spoilt") / "metrics.jsonl"
    path.write_bytes(data)
    before = read(path)
    assert all(isinstance(record, dict) for record in before)
    assert [repr(record) for record in quietly(iter_metrics, path)] == list(map(repr, before))
    assert len(next(iter(quietly(read_columns, path).values()), [])) == len(before)
    with contextlib.suppress(ValueError):  # the one error that they may raise
        assert list(map(repr, read_metrics(path, strict=True))) == list(map(repr, before))
    untouched = {n for n, line in enumerate(LINES) if b"\n" + line in b"\n" + data}
    assert untouched <= {record.get("n") for record in before if isinstance(record.get("n"), int)}

    with MetricsLogger(path) as logger:
        logger.write({"n": "later"})
    assert [repr(record) for record in read(path)[:-1]] == list(map(repr, before))
    assert read(path)[-1]["n"] == "later"

    first_nonfinite(path)
    alarm = b'{"message":"loss is nan","metric":"loss","step":null,"time":0}\n'
    alarms_path(path).write_bytes(alarm + data)
    with MetricsLogger(path, resume_step=10) as logger:
        logger.write({"step": 11})
    assert read(path)[-1]["step"] == 11


def test_a_line_of_many_megabytes(tmp_path, scale):
    path = tmp_path / "metrics.jsonl"
    text = "x" * scale(10_000_000, 100_000_000)
    path.write_bytes(b'{"n":0}\n' + json.dumps({"text": text}).encode() + b'\n{"n":1}\n')
    with MetricsLogger(path) as logger:
        logger.write({"n": 2})
    records = read_metrics(path, strict=True)
    assert [record.get("n") for record in records] == [0, None, 1, 2]
    assert records[1]["text"] == text


class Recorder:
    def __init__(self, keep=repr):
        self.taken = []
        self._keep = keep

    def log(self, record, step=None):
        self.taken.append(self._keep(record))

    def close(self): ...


@settings(max_examples=settings().max_examples // 4)
@given(spoilt())
def test_a_feed_gets_over_a_spoilt_file(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("spoilt") / "metrics.jsonl"
    with MetricsLogger(path, [Recorder()]):
        pass  # the backend is new to the file, which is empty
    path.write_bytes(data)
    backend = Recorder()
    with MetricsLogger(path, [backend]) as logger:
        logger.write({"n": "later"})
    expected = list(map(repr, read(path)))
    assert backend.taken[-1] == expected[-1]
    assert set(backend.taken) <= set(expected)


def test_a_file_cut_at_any_byte(tmp_path, scale):
    path = tmp_path / "metrics.jsonl"
    for size in range(0, 2 * len(LINES[0]) + 1, scale(3, 1)):
        path.write_bytes(WHOLE[:size])
        whole = WHOLE[:size].count(b"\n")
        with MetricsLogger(path) as logger:
            logger.write({"n": "later"})
        kept = [record["n"] for record in read_metrics(path, strict=True)]
        assert kept[:whole] == list(range(whole))
        assert kept[-1] == "later"
        assert len(kept) - 1 in (whole, whole + 1)  # one that only lacks its newline is whole


def test_nesting_without_end(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with MetricsLogger(path, [Recorder()]):
        pass  # the backend is new to the file, which is empty
    deep = [b'{"a":' * 100_000, b'{"a":' * 1_000 + b"1" + b"}" * 1_000, b"[" * 10_000_000]
    marks = b'{"a":null,"_nonfinite":' + b'{"a":' * 900 + b'"nan"' + b"}" * 901
    # Marks of a number as deep as orjson reads, which is deeper than Python calls functions.
    level, end = b'{"a":' * 1_015, b"}" * 1_015
    marked = level + b"null" + end[:-1] + b',"_nonfinite":' + level + b'"nan"' + end + b"}"
    path.write_bytes(b'{"n":0}\n' + b"\n".join([*deep, marks, marked]) + b'\n{"n":1}\n')
    backend = Recorder(lambda record: record.get("n"))
    with MetricsLogger(path, [backend]) as logger:
        logger.write({"n": 2})
    numbers = [record.get("n") for record in read(path)]
    assert [n for n in numbers if n is not None] == [0, 1, 2]
    assert backend.taken == numbers


@settings(max_examples=settings().max_examples // 4)
@given(
    st.binary(max_size=300) | st.text(max_size=100).map(str.encode),
    st.floats(0, 1),
    st.integers(0, 60),
)
def test_cursor_writers_and_id_files_may_hold_anything(tmp_path_factory, rubbish, place, length):
    directory = tmp_path_factory.mktemp("rubbish")
    path = directory / "metrics.jsonl"
    with MetricsLogger(path, [Recorder()]) as logger:
        logger.write({"n": 0})
    (cursor,) = directory.glob("*.cursor.json")
    for file in (cursor, writers_path(path)):
        text = bytearray(file.read_bytes())
        at = round(place * len(text))
        text[at : at + length] = rubbish
        file.write_bytes(text)
    backend = Recorder()
    with MetricsLogger(path, [backend]) as logger:
        logger.write({"n": 1})
    assert [record["n"] for record in read_metrics(path, strict=True)] == [0, 1]
    assert len(backend.taken) in (1, 2)  # a cursor that is none: from the logger's start

    file = directory / "wandb_id.txt"
    file.write_bytes(rubbish)
    saved = _saved_id(file)
    assert saved is None or re.fullmatch(r"[^\s/]{1,128}", saved)


VALUES = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text()


@settings(max_examples=settings().max_examples // 2)
@given(
    st.fixed_dictionaries(dict.fromkeys(("byte", "ordinal", "file"), VALUES | st.integers(0, 60))),
    st.fixed_dictionaries(
        {"event": st.just("open")}
        | dict.fromkeys(("time", "pid", "inode", "byte", "ordinal"), VALUES | st.integers(0, 60))
    ),
)
def test_cursor_and_writers_files_may_hold_any_values(tmp_path_factory, saved, note):
    path = tmp_path_factory.mktemp("values") / "metrics.jsonl"
    with MetricsLogger(path, [Recorder()]) as logger:
        logger.write({"n": 0})
    (cursor,) = path.parent.glob("*.cursor.json")
    cursor.write_text(json.dumps(saved))
    writers_path(path).write_text(json.dumps(note) + "\n")
    backend = Recorder()
    with MetricsLogger(path, [backend]) as logger:
        logger.write({"n": 1})
    assert [record["n"] for record in read_metrics(path, strict=True)] == [0, 1]
    assert len(backend.taken) <= 2
    assert logger.stats.backends["Recorder"].failed == 0
