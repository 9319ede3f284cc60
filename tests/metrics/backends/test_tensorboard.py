import math
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from service_files import tensorboard_scalars

from vibe_rl.metrics import LogBackend, MetricsLogger, TensorBoardBackend, read_metrics
from vibe_rl.run_dir import RunDir


def logged(tmp_path, *records, step=None):
    backend = TensorBoardBackend(tmp_path)
    for record in records:
        backend.log(record, step)
    backend.close()
    return tensorboard_scalars(tmp_path)


def test_every_number_is_a_scalar_and_nothing_else_is(tmp_path):
    record = {"step": 7, "loss": 0.5, "int": -3, "done": True, "big": 2**63, "wall_time": 1.25}
    rest = {"name": "x", "none": None, "list": [1.0, 2.0], "empty": {}, "text": {"a": "b"}}
    scalars = logged(tmp_path, {**record, **rest}, step=7)
    assert {tag: points[0][1:] for tag, points in scalars.items()} == {
        tag: (7, number) for tag, number in record.items()
    }


def test_numbers_that_are_not_finite_arrive(tmp_path):
    values = [math.nan, math.inf, -math.inf]
    points = logged(tmp_path, *({"loss": value} for value in values))["loss"]
    assert [str(value) for _, _, value in points] == ["nan", "inf", "-inf"]


def test_numbers_beyond_float32_are_infinite(tmp_path):
    points = logged(tmp_path, {"a": 1e39, "b": 1.0}, {"a": 2.0, "b": -1e300})
    assert [value for _, _, value in points["a"]] == [math.inf, 2.0]
    assert [value for _, _, value in points["b"]] == [1.0, -math.inf]


@pytest.mark.parametrize("count", [1, 2, 30])
@pytest.mark.parametrize("tag", ["", "loss", "größe", "x" * 127, "x" * 20_000])
def test_an_event_has_the_bytes_that_the_library_would_give_it(tmp_path, tag, count):
    backend = TensorBoardBackend(tmp_path)
    numbers = {f"{tag}{i or ''}": i / 3 for i in range(count)}
    event = backend._new_event()
    for name, number in numbers.items():
        event.summary.value.add(tag=name, simple_value=number)
    for _ in range(2):
        assert backend._summary(numbers) == event.SerializeToString()
    backend.close()


def test_mappings_become_tags_with_slashes(tmp_path):
    scalars = logged(tmp_path, {"eval": {"return": 1.0, "by seed": {"0": 2.0}, "name": "x"}})
    assert set(scalars) == {"eval/return", "eval/by seed/0"}


def test_points_lie_at_the_time_and_step_of_their_record(tmp_path):
    backend = TensorBoardBackend(tmp_path)
    backend.log_at({"loss": 1.0}, 10, time=1000.5, ordinal=0)
    backend.log_at({"loss": 2.0}, None, time=1001.5, ordinal=33)
    backend.log_at({"loss": 3.0}, 5, time=1002.5, ordinal=34)  # back to a checkpoint
    backend.log_at({"loss": 4.0}, 5, time=1003.5, ordinal=35)
    backend.close()
    points = [(1000.5, 10, 1.0), (1001.5, 33, 2.0), (1002.5, 5, 3.0), (1003.5, 5, 4.0)]
    assert tensorboard_scalars(tmp_path) == {"loss": points}


def test_without_a_step_records_are_counted(tmp_path):
    points = logged(tmp_path, {"a": 1.0}, {"text": "x"}, {"a": 2.0})["a"]
    assert [step for _, step, _ in points] == [0, 2]


@pytest.mark.parametrize("step", [2**63, -(2**63) - 1])
def test_a_step_that_takes_more_than_64_bits_is_counted_too(tmp_path, step):
    points = logged(tmp_path, {"a": 1.0}, {"a": 2.0}, step=step)["a"]
    assert [(step, value) for _, step, value in points] == [(0, 1.0), (1, 2.0)]


def test_without_numbers_there_is_no_file(tmp_path):
    assert logged(tmp_path, {"text": "x"}) == {}
    assert list(tmp_path.iterdir()) == []


def test_records_of_many_kinds_keep_their_own_tags(tmp_path):
    backend = TensorBoardBackend(tmp_path)
    for i in range(600):  # more kinds than are remembered at a time, and each of them twice
        backend.log({"all": i, f"only{i % 300}": i})
    backend.close()
    assert len(backend._kinds) < 300
    scalars = tensorboard_scalars(tmp_path)
    assert [value for _, _, value in scalars["all"]] == list(range(600))
    assert [value for _, _, value in scalars["only299"]] == [299.0, 599.0]


def test_flush_shows_what_was_logged(tmp_path):
    backend = TensorBoardBackend(tmp_path)
    backend.log({"loss": 1.0})
    backend.flush()
    assert set(tensorboard_scalars(tmp_path)) == {"loss"}
    backend.close()


def test_backends_of_one_directory_add_up_in_order(tmp_path):
    for i in range(5):  # all within a second, and so at the risk of one file name
        logged(tmp_path, {"loss": float(i)}, step=i)
    points = tensorboard_scalars(tmp_path)["loss"]
    assert [(step, value) for _, step, value in points] == [(i, float(i)) for i in range(5)]


def test_what_a_full_disk_refuses_can_be_logged_again(tmp_path):
    script = f"""if True:
        import resource
        from vibe_rl.metrics import TensorBoardBackend
        backend = TensorBoardBackend({str(tmp_path)!r})
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, {resource.RLIM_INFINITY}))
        failures = 0
        for i in range(60_000):
            while True:
                try:
                    backend.log({{"loss": i, "text" * 20: i}}, i)
                    break
                except OSError:
                    failures += 1
                    room = 1_500_000 + 100_001 * failures
                    resource.setrlimit(resource.RLIMIT_FSIZE, (room, {resource.RLIM_INFINITY}))
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        backend.close()
        assert failures > 3, failures
    """
    subprocess.run([sys.executable, "-c", script], check=True)
    points = tensorboard_scalars(tmp_path)["loss"]
    assert [(step, value) for _, step, value in points] == [(i, float(i)) for i in range(60_000)]


def test_tensorboard_reads_what_the_logger_wrote(tmp_path):
    run = RunDir("example", tmp_path)
    with MetricsLogger(run.log_path(), [TensorBoardBackend(log_dir=run.logs)]) as logger:
        for step in range(500):
            logger.write({"step": step, "loss": 1 / (step + 1), "eval": {"return": -step}})
    records = read_metrics(run)
    scalars = tensorboard_scalars(run.logs)
    assert set(scalars) == {"step", "loss", "eval/return", "wall_time"}
    for tag, value in [
        ("loss", lambda r: r["loss"]),
        ("eval/return", lambda r: r["eval"]["return"]),
    ]:
        assert [(step, number) for _, step, number in scalars[tag]] == [
            (record["step"], pytest.approx(value(record), rel=1e-6)) for record in records
        ]


def test_a_field_may_keep_records_in_directories_of_their_own(tmp_path):
    backend = TensorBoardBackend(tmp_path, split_by="seed")
    with MetricsLogger(tmp_path / "metrics.jsonl", [backend]) as logger:
        for step in range(20):
            for seed in (0, 1):
                logger.write({"step": step, "seed": seed, "loss": step + seed / 2})
            logger.write({"step": step, "speed": 3.0})
    for seed in (0, 1):
        points = tensorboard_scalars(tmp_path / f"seed-{seed}")["loss"]
        assert [(step, value) for _, step, value in points] == [
            (step, step + seed / 2) for step in range(20)
        ]
    assert set(tensorboard_scalars(tmp_path)) >= {"speed"}
    own = [file for file in tmp_path.iterdir() if file.name.startswith("events")]
    assert len(own) == 1


def test_a_field_s_values_make_no_path(tmp_path):
    backend = TensorBoardBackend(tmp_path / "logs", split_by="name")
    backend.log({"name": "../../a b/c", "loss": 1.0})
    backend.log({"name": None, "loss": 2.0})
    backend.flush()
    assert sorted(entry.is_dir() for entry in (tmp_path / "logs").iterdir()) == [False, True]
    backend.close()
    assert [entry.name for entry in tmp_path.iterdir()] == ["logs"]


def test_a_field_s_values_may_be_long_and_differ_in_a_character(tmp_path):
    backend = TensorBoardBackend(tmp_path, split_by="name")
    names = ["a/b", "a b", "a_b", "ä", "x" * 300, "x" * 299 + "y"]
    for i, name in enumerate(names):
        backend.log({"name": name, "i": i})
    backend.close()
    parts = list(tmp_path.iterdir())
    assert tmp_path / "name-a_b" in parts
    points = [tensorboard_scalars(part)["i"] for part in parts]
    assert sorted(value for ((_, _, value),) in points) == list(range(len(names)))


def test_a_part_that_can_not_be_closed_leaves_no_other_open(tmp_path):
    backend = TensorBoardBackend(tmp_path, split_by="seed")
    for seed in range(3):
        backend.log({"seed": seed, "loss": 1.0})
    backend.log({"loss": 1.0})
    files = [part._file for part in backend._parts] + [backend._file]
    with Path("/dev/full").open("wb") as full:
        os.dup2(full.fileno(), files[1].fileno())
    with pytest.raises(OSError, match="No space left"):
        backend.close()
    assert all(file.closed for file in files)


@pytest.mark.parametrize("harm", ["delete", "move"])
def test_a_directory_that_is_deleted_or_moved_is_made_again(tmp_path, harm, caplog):
    directory = tmp_path / "tb"
    backend = TensorBoardBackend(directory, split_by="seed")
    logger = MetricsLogger(tmp_path / "metrics.jsonl", [backend])
    logger.write({"step": 0})
    logger.write({"step": 0, "seed": 3})
    logger.flush()
    if harm == "delete":
        shutil.rmtree(directory)
    else:
        directory.rename(tmp_path / "away")
    logger.flush()
    for step in (1, 2):
        logger.write({"step": step})
        logger.write({"step": step, "seed": 3})
    logger.close()
    for part in (directory, directory / "seed-3"):
        assert [step for _, step, _ in tensorboard_scalars(part)["step"]] == [1, 2]
    assert caplog.text.count("was deleted or moved") == 2


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts descriptors in /proc")
def test_a_field_of_many_values_leaves_a_process_its_descriptors(tmp_path, caplog):
    before = len(list(Path("/proc/self/fd").iterdir()))
    backend = TensorBoardBackend(tmp_path, split_by="env")
    for _ in range(2):
        for env in range(400):
            backend.log({"env": env})
    backend.flush()
    assert len(list(Path("/proc/self/fd").iterdir())) - before <= 129
    backend.close()
    assert sum(part.is_dir() for part in tmp_path.iterdir()) == 128
    rest = [value for _, _, value in tensorboard_scalars(tmp_path)["env"]]
    assert [value for value in rest if value >= 128] == 2 * list(range(128, 400))
    assert caplog.text.count("env has more than 128 values") == 1


def test_split_by_is_a_field(tmp_path):
    with pytest.raises(TypeError, match="split_by is the name of a field"):
        TensorBoardBackend(tmp_path, split_by=3)


def test_its_identity_is_its_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first, second = TensorBoardBackend("logs"), TensorBoardBackend(tmp_path / "logs")
    other = TensorBoardBackend("others")
    assert first.identity == second.identity != other.identity
    assert isinstance(first, LogBackend)
    for backend in (first, second, other):
        backend.close()


@pytest.mark.parametrize("url", ["gs://bucket/logs", "s3:/bucket/logs"])
def test_a_url_is_refused(url):
    with pytest.raises(ValueError, match=f"not the URL '{url}'"):
        TensorBoardBackend(url)


def test_a_directory_that_can_not_be_made_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"log_dir '.*logs' can't be written"):
        TensorBoardBackend(tmp_path / "file" / "logs")


def without(modules, tmp_path):
    """What a Python says about a backend in which these modules can't be imported."""
    script = f"""if True:
        import sys
        for module in {modules!r}:
            sys.modules[module] = None
        from vibe_rl.metrics import TensorBoardBackend
        try:
            backend = TensorBoardBackend({str(tmp_path)!r})
        except ImportError as error:
            print(error)
        else:
            backend.log({{"loss": 0.5}}, 3)
            backend.close()
            print(type(backend._new_event()).__module__)
    """
    command = [sys.executable, "-c", script]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_without_tensorboardx_tensorboard_itself_serves(tmp_path):
    assert without(["tensorboardX"], tmp_path).startswith("tensorboard.")
    assert [point[1:] for point in tensorboard_scalars(tmp_path)["loss"]] == [(3, 0.5)]


def test_without_native_checksums_files_are_the_same(tmp_path):
    assert without(["crc32c"], tmp_path).startswith("tensorboardX.")
    assert [point[1:] for point in tensorboard_scalars(tmp_path)["loss"]] == [(3, 0.5)]


def test_without_either_the_error_names_the_extra(tmp_path):
    message = without(["tensorboardX", "tensorboard"], tmp_path)
    assert "pip install 'vibe-rl[tensorboard]'" in message
