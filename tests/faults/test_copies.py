"""Spawned and forkserver processes, pickles and deep copies: they work, or say what to do."""

import copy
import multiprocessing
import pickle

import pytest

from vibe_rl.metrics import MetricsLogger, TensorBoardBackend, isolated, read_metrics

SCRIPT = """
import multiprocessing, sys
from work import work

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    from vibe_rl.metrics import MetricsLogger
    with MetricsLogger("metrics.jsonl", queue_size=64) as logger:
        processes = [context.Process(target=work, args=(n,)) for n in range(2)]
        for process in processes:
            process.start()
        i = 0
        while any(process.is_alive() for process in processes):
            logger.write({"who": "parent", "i": i})
            i += 1
        print(i, [process.exitcode for process in processes])
"""

WORK = """
from vibe_rl.metrics import MetricsLogger

def work(n):
    with MetricsLogger("metrics.jsonl") as logger:  # a logger of its own, on the same path
        for i in range(1_000):
            logger.write({"who": n, "i": i})
"""


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_child_makes_a_logger_of_its_own_on_the_same_path(method, run_python, tmp_path):
    (tmp_path / "work.py").write_text(WORK)
    (tmp_path / "script.py").write_text(SCRIPT)
    status, out, err = run_python(
        "import runpy; runpy.run_path('script.py', run_name='__main__')", method
    )
    assert status == 0, err
    count, _, codes = out.partition(" ")
    assert codes.strip() == "[0, 0]", err
    records = read_metrics(tmp_path / "metrics.jsonl", strict=True)
    for who, expected in (("parent", int(count)), (0, 1_000), (1, 1_000)):
        assert [r["i"] for r in records if r["who"] == who] == list(range(expected))


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_logger_given_to_such_a_child_is_an_error_where_it_is_started(method, tmp_path):
    with MetricsLogger(tmp_path / "metrics.jsonl") as logger:
        process = multiprocessing.get_context(method).Process(target=print, args=(logger,))
        with pytest.raises(TypeError, match="make one there on the same path"):
            process.start()
        logger.write({"i": 0})
    assert len(read_metrics(tmp_path / "metrics.jsonl")) == 1


@pytest.mark.parametrize(
    "copying",
    [
        copy.copy,
        copy.deepcopy,
        pickle.dumps,
        lambda logger: copy.deepcopy({"state": [logger]}),
        lambda logger: pickle.dumps({"state": [logger]}),
    ],
)
def test_copies_are_refused_and_harm_nothing(copying, tmp_path):
    with MetricsLogger(tmp_path / "metrics.jsonl") as logger:
        with pytest.raises(TypeError, match="can't be copied or sent to another process"):
            copying(logger)
        logger.write({"i": 0})
    assert len(read_metrics(tmp_path / "metrics.jsonl")) == 1


@pytest.mark.parametrize("copying", [copy.deepcopy, pickle.dumps])
def test_an_isolated_backend_can_not_be_copied_either(copying, tmp_path):
    backend = isolated(TensorBoardBackend, tmp_path)
    with pytest.raises(TypeError):
        copying(backend)
    with MetricsLogger(tmp_path / "metrics.jsonl", [backend]) as logger:
        logger.write({"i": 0})
    assert logger.stats.backends["TensorBoardBackend"].logged == 1
