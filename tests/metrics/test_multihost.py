"""A job of two processes, joined by `jax.distributed` over loopback, with four devices each."""

import json
import socket
import subprocess
import sys
import time

import pytest

from vibe_rl.metrics import MetricsLogger, iter_metrics, read_metrics
from vibe_rl.metrics.alarms import read_alarms
from vibe_rl.metrics.append import process_path, writers_path
from vibe_rl.metrics.reading.state import run_state
from vibe_rl.run_dir import RunDir

PREAMBLE = """
import json, os, sys
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"
import jax, jax.numpy as jnp, numpy as np
import jax._src.xla_bridge as xla_bridge
from vibe_rl.metrics import *
from vibe_rl.run_dir import RunDir
ME = int(sys.argv[1])
jax.distributed.initialize(sys.argv[2], num_processes=2, process_id=ME)

def tell(**facts):
    print("FACTS " + json.dumps(facts), flush=True)

def mesh():
    return jax.sharding.Mesh(np.array(jax.devices()), ("d",))

def spread(values, *axes):
    sharding = jax.sharding.NamedSharding(mesh(), jax.sharding.PartitionSpec(*axes))
    return jax.make_array_from_callback(values.shape, sharding, lambda index: values[index])
"""


@pytest.fixture
def job(tmp_path):
    """Run a script as both processes of a job; gives what each told."""

    def run(script):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", PREAMBLE + script, str(process), address],
                cwd=tmp_path,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for process in range(2)
        ]
        try:
            outputs = [process.communicate(timeout=100)[0] for process in processes]
        finally:
            for process in processes:
                process.kill()
        facts = []
        for process, output in zip(processes, outputs, strict=True):
            assert process.returncode == 0, output
            lines = [line for line in output.splitlines() if line.startswith("FACTS ")]
            told = {}
            for line in lines:
                told |= json.loads(line.removeprefix("FACTS "))
            facts.append(told)
        return facts

    return run


def without_times(records):
    return [{k: v for k, v in record.items() if k != "wall_time"} for record in records]


def test_the_primary_process_logs_and_the_directory_is_the_same_on_all(job, tmp_path):
    facts = job("""
run = RunDir("exp")
again = RunDir("exp")
named = RunDir(run_id="named")
logger = MetricsLogger(run)
tell(roots=[r.run_id for r in (run, again, named)], backends=len(xla_bridge._backends))
replicated = spread(np.float32(0.42))
sharded = spread(np.arange(8, dtype=np.float32), "d")
total = jax.jit(lambda x: x.sum(), out_shardings=replicated.sharding)(sharded)
logger.write({"step": 0, "replicated": replicated, "total": total})
try:
    logger.write({"step": 1, "sharded": sharded})
    tell(error=None)
except ValueError as error:
    tell(error=str(error))
logger.write_batch({"step": range(2, 4), "local": np.arange(2)})
assert logger.flush()
stats = logger.stats
tell(written=stats.written, queued=stats.queued, path=str(logger.path))
logger.close()
try:
    logger.write({})
    tell(refused=False)
except ValueError:
    tell(refused=True)
""")
    first, second = facts
    assert first["roots"] == second["roots"]
    assert len(set(first["roots"])) == 3
    assert first["roots"][2] == "named"
    assert (first["backends"], second["backends"]) == (0, 0)  # JAX's are initialised by use alone
    assert "metric 'sharded'" in first["error"]
    assert "other processes" in first["error"]
    assert second["error"] is None  # nothing is read where nothing is logged
    assert (first["written"], second["written"]) == (3, 0)
    assert first["path"] == second["path"]
    assert first["refused"]
    assert second["refused"]
    run = tmp_path / "runs" / first["roots"][0]
    assert without_times(read_metrics(run)) == [
        {"step": 0, "replicated": 0.42, "total": 28.0},
        {"step": 2, "local": 0},
        {"step": 3, "local": 1},
    ]
    assert sorted(path.name for path in (run / "logs").iterdir()) == [
        "metrics.jsonl",
        "metrics.writers.jsonl",
    ]


def test_all_processes_log_and_the_readers_merge(job, tmp_path):
    job("""
import time
from jax.experimental.multihost_utils import sync_global_devices
run = RunDir(run_id="run")
replicated = spread(np.float32(0.42))
with MetricsLogger(run, process="all", defer=1) as logger:
    for step in range(3):
        logger.write({"step": step, "mine": jnp.float32(ME), "replicated": replicated})
        sync_global_devices(f"step {step}")
        time.sleep(0.05)
    logger.write_batch({"step": range(3, 5), "x": np.full(2, ME)})
    logger.write({"step": 5, "process": "mine"})
    tell(path=logger.path.name)
assert logger.path.name == f"metrics.p{ME}.jsonl"
""")
    run = RunDir(run_id="run", base_dir=tmp_path / "runs")
    for process in range(2):
        expected = [
            *({"step": step, "mine": process, "replicated": 0.42} for step in range(3)),
            *({"step": step, "x": process} for step in range(3, 5)),
        ]
        expected = [{**record, "process": process} for record in expected]
        expected.append({"step": 5, "process": "mine"})
        own = read_metrics(run.log_path(f"metrics.p{process}.jsonl"))
        assert without_times(own) == expected
    merged = read_metrics(run)
    assert len(merged) == 12
    for process in range(2):
        mine = [record["step"] for record in merged if record["process"] == process]
        assert mine == [0, 1, 2, 3, 4]
    assert [record["process"] for record in merged[:3]] != [0] * 3  # in turn, not one by one
    assert list(iter_metrics(run.root)) == merged


def test_shipped_backends_exist_on_the_primary_process_only(job, tmp_path):
    pytest.importorskip("wandb")
    pytest.importorskip("tensorboardX")
    facts = job("""
os.environ["WANDB_MODE"] = "offline"
os.environ["WANDB_SILENT"] = "true"

class Recorder:
    def __init__(self):
        self.steps, self.closed = [], 0
    def log(self, record, step=None):
        self.steps.append(step)
    def close(self):
        self.closed += 1

run = RunDir("exp")
own = Recorder()
wandb = WandbBackend(project="rl", run_dir=run.root)
tensorboard = isolated(TensorBoardBackend, run.logs)
with MetricsLogger(run, backends=[wandb, tensorboard, own]) as logger:
    for step in range(3):
        logger.write({"step": step, "loss": 1.0 / (step + 1)})
    logger.flush()
    tell(fed=sorted(logger.stats.backends))
if ME:  # all of what the class offers, though it does nothing here
    wandb.log({"x": 1})
    wandb.flush()
tell(run=run.run_id, id=wandb.run_id, steps=own.steps, closed=own.closed)
""")
    first, second = facts
    assert first["fed"] == ["Recorder", "TensorBoardBackend", "WandbBackend"]
    assert second["fed"] == []
    assert (first["steps"], second["steps"]) == ([0, 1, 2], [])
    assert (first["closed"], second["closed"]) == (1, 1)
    run = tmp_path / "runs" / first["run"]
    assert (run / "wandb_id.txt").read_text() == first["id"]
    assert second["id"] is None
    assert len(list(run.glob("logs/events.out.tfevents.*"))) == 1
    assert len(list(tmp_path.glob("**/offline-run-*"))) == 1


def test_backends_of_ones_own_are_fed_on_all_processes_that_log(job, tmp_path):
    facts = job("""
class Recorder:
    steps = []
    def log(self, record, step=None):
        self.steps.append((step, record["process"]))
    def close(self):
        pass

alert = lambda record: "late" if ME == 1 else None
with MetricsLogger("m.jsonl", backends=[Recorder()], process="all", alert=alert) as logger:
    logger.write({"step": 10 * ME})
tell(steps=Recorder.steps)
""")
    assert [each["steps"] for each in facts] == [[[0, 0]], [[10, 1]]]
    assert not (tmp_path / "m.jsonl").exists()
    assert sorted(record["step"] for record in read_metrics(tmp_path / "m.jsonl")) == [0, 10]
    assert [alarm.message for alarm in read_alarms(tmp_path / "m.jsonl")] == ["late"]
    assert [file.name for file in tmp_path.glob("*.alarms.jsonl")] == ["m.p1.alarms.jsonl"]


def test_what_compiled_functions_log_is_the_primary_processs_alone(job, tmp_path):
    job("""
logger = MetricsLogger("m.jsonl")
x = spread(np.arange(8, dtype=np.float32), "d")

@jax.jit
def f(x):
    total = x.sum()
    logger.emit({"total": total})
    return total

jax.block_until_ready(f(x))
logger.close()
tell(late=logger.stats.late, written=logger.stats.written)
assert logger.stats.written == (1 if ME == 0 else 0)
""")
    assert without_times(read_metrics(tmp_path / "m.jsonl")) == [{"total": 28.0}]


@pytest.mark.parametrize("process", ["primary", "all"])
def test_inside_jit_what_processes_share_is_logged_once_and_the_rest_by_each(
    job, tmp_path, process
):
    job(f"""
from functools import partial
logger = MetricsLogger("m.jsonl", process={process!r})
P = jax.sharding.PartitionSpec
x = spread(np.arange(8, dtype=np.float32), "d")

def body(way, total, _):
    return total + 1, {{"way": way, "total": total}}

def scan(way, start):  # "way" is a number: scan logs no text
    return logger.scan(partial(body, way), start, length=3, every=2, collect=False)[0]

jax.block_until_ready(jax.jit(lambda x: scan(1, x.sum()))(x))
jax.block_until_ready(jax.jit(lambda x: jax.vmap(partial(scan, 2))(x[:2]))(x))
jax.block_until_ready(jax.jit(partial(scan, 3))(jnp.float32(ME)))  # of this process alone
logger.write(jax.jit(lambda x: pack({{"way": 4, "total": x.sum()}}))(x))
shards = jax.shard_map(
    lambda x: logger.emit({{"way": 5, "total": x[0]}}) or x, mesh=mesh(), in_specs=P("d"),
    out_specs=P("d"),
)
jax.block_until_ready(jax.jit(shards)(x))
logger.close()
""")
    records = without_times(read_metrics(tmp_path / "m.jsonl"))
    processes = [0] if process == "primary" else [0, 1]
    for me in processes:
        label = {} if process == "primary" else {"process": me}
        mine = [record for record in records if record.get("process", 0) == me]
        by_way = {way: [r for r in mine if r["way"] == way] for way in range(1, 6)}
        steps = [{"step": step, "way": 1, "total": 28.0 + step, **label} for step in range(3)]
        # A computation that the processes share is logged once: by the first.
        assert by_way[1] == (steps if me == 0 else [])
        assert by_way[2] == [
            {"lane": lane, "step": step, "way": 2, "total": float(lane + step), **label}
            for step in range(3)
            for lane in range(2)
            if me == 0
        ]
        assert [record["total"] for record in by_way[3]] == [me, me + 1, me + 2]
        assert by_way[4] == [{"total": 28.0, "way": 4, **label}]
        # With "primary", the shards of other processes are in no file: a limit that the guide tells
        held = range(4 * me, 4 * me + 4)
        assert sorted(record["total"] for record in by_way[5]) == list(held)
        assert sorted(record["d"] for record in by_way[5]) == list(held)
    assert len(records) == 3 + 6 + (3 + 1 + 4) * len(processes)


def test_a_run_directory_that_the_primary_process_does_not_make_is_an_error_in_time(job):
    first, second = job("""
import vibe_rl.processes
from vibe_rl.processes import agree
if ME == 0:
    tell(error=None)
else:
    try:
        agree("the run directory of 'exp'", lambda: "never", timeout=0.5)
        tell(error=None)
    except TimeoutError as error:
        tell(error=str(error))
""")
    assert first["error"] is None
    assert "process 1 has waited 0.5 s for process 0" in second["error"]
    assert "every process" in second["error"]


def test_without_a_job_all_is_as_ever(tmp_path):
    with MetricsLogger(tmp_path / "m.jsonl", process="all") as logger:
        logger.write({"step": 0})
    assert without_times(read_metrics(tmp_path / "m.jsonl")) == [{"step": 0}]
    assert (tmp_path / "m.jsonl").exists()


def test_merging_keeps_to_the_time_of_writing_over_a_restart(tmp_path):
    def log(process, step, wall_time):
        with MetricsLogger(tmp_path / f"metrics.p{process}.jsonl") as logger:
            logger.write({"step": step, "process": process, "wall_time": wall_time})

    # As processes leave it of which the first was started again: its wall_time begins anew.
    log(0, 0, 0.0)
    log(1, 0, 0.1)
    time.sleep(0.5)
    log(0, 1, 0.0)
    merged = read_metrics(tmp_path / "metrics.jsonl")
    order = [(record["step"], record["process"]) for record in merged]
    assert order == [(0, 0), (0, 1), (1, 0)]


def log_all(monkeypatch, path, job, steps, attempt, *, last_first=False, **settings):
    """Log as a job does whose processes come one after the other, and end together."""
    processes, process = job
    loggers = []
    with monkeypatch.context() as patch:
        patch.setattr("vibe_rl.metrics.logger.process_count", lambda: processes)
        for index in sorted(range(processes), reverse=last_first):
            patch.setattr("vibe_rl.metrics.logger.process_index", lambda index=index: index)
            loggers.append(MetricsLogger(path, process=process, **settings))
            for step in steps:
                loggers[-1].write({"step": step, "attempt": attempt})
            loggers[-1].flush()
    for logger in loggers:
        logger.close()


@pytest.mark.parametrize("last_first", [False, True])
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((2, "all"), (1, "all")),
        ((1, "all"), (2, "all")),
        ((4, "all"), (2, "all")),
        ((2, "all"), (4, "all")),
        ((2, "all"), (2, "primary")),
        ((2, "primary"), (2, "all")),
    ],
)
def test_a_job_that_goes_back_with_other_processes_keeps_one_history(
    tmp_path, monkeypatch, before, after, last_first
):
    path = tmp_path / "metrics.jsonl"
    log_all(monkeypatch, path, before, range(10), "first")
    for notes in tmp_path.glob("*.writers.jsonl"):  # it was killed
        opened, _, _ = notes.read_bytes().partition(b"\n")
        notes.write_bytes(opened + b"\n")
    assert run_state(path).state == "crashed"
    there = [(record["step"], record["attempt"]) for record in read_metrics(path)]
    log_all(monkeypatch, path, after, range(6, 8), "second", last_first=last_first, resume_step=5)
    found = [(record["step"], record["attempt"]) for record in read_metrics(path)]
    kept = [each for each in there if each[0] <= 5]
    assert sorted(each for each in found if each[0] <= 5) == sorted(kept)
    assert {attempt for step, attempt in found if step > 5} == {"second"}
    assert run_state(path).state == "finished"
    # What has made way is beside each file.
    files = tmp_path.glob("*.superseded.jsonl")
    assert sum(len(read_metrics(file)) for file in files) == len(there) - len(kept)


def test_a_file_that_no_process_writes_any_more_must_not_be_open_elsewhere(tmp_path, monkeypatch):
    path = tmp_path / "metrics.jsonl"
    log_all(monkeypatch, path, (2, "all"), range(10), "first")
    with (
        MetricsLogger(process_path(path, 1)),
        pytest.raises(OSError, match="another logger has the file open"),
    ):
        log_all(monkeypatch, path, (1, "all"), [6], "second", resume_step=5)
    log_all(monkeypatch, path, (1, "all"), [6], "second", resume_step=5)
    assert sorted(record["step"] for record in read_metrics(path)) == [*sorted([*range(6)] * 2), 6]


def test_the_notes_of_a_file_that_no_process_writes_any_more_are_of_its_own_loggers(
    tmp_path, monkeypatch
):
    """But for one that says that the run, whose logger was killed there, goes on elsewhere."""
    path = tmp_path / "metrics.jsonl"
    log_all(monkeypatch, path, (2, "all"), range(3), "first")
    notes = writers_path(process_path(path, 1))
    before = notes.read_bytes()
    with MetricsLogger(process_path(path, 1)):
        log_all(monkeypatch, path, (1, "all"), [3], "second", resume_step=5)
        assert len(notes.read_bytes().splitlines()) == 2 + 1
        assert run_state(path).state == "running"
    notes.write_bytes(before)
    log_all(monkeypatch, path, (1, "all"), [3], "third", resume_step=5)
    assert notes.read_bytes() == before


def test_process_is_one_of_two_words(tmp_path):
    with pytest.raises(ValueError, match=r"process is one of primary, all; not 'each'"):
        MetricsLogger(tmp_path / "m.jsonl", process="each")
