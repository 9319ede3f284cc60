import logging
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vibe_rl.metrics.console import format_metrics, log_step_progress, setup_logging

LINE = re.compile(r"([DIWEC]) \d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} \[([\w.]+)\] (.*)\n")


@pytest.fixture(autouse=True)
def logger():
    logger = logging.getLogger("vibe_rl")
    before = logger.handlers[:], logger.level, logger.propagate
    yield logger
    logger.handlers[:], logger.level, logger.propagate = before


@pytest.fixture
def root_handler():
    """Attaches a handler to the root logger for as long as the test runs."""
    attached = []

    def attach(handler):
        attached.append(handler)
        logging.getLogger().addHandler(handler)
        return handler

    yield attach
    for handler in attached:
        logging.getLogger().removeHandler(handler)
        handler.close()


class TestSetupLogging:
    def test_the_format(self, capsys, logger):
        setup_logging(logging.DEBUG)
        for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
            logger.log(level, "Gradient norm %s", 3)
        logging.getLogger("vibe_rl.ppo").critical("Diverged")
        out, err = capsys.readouterr()
        lines = [match.groups() for match in LINE.finditer(err)]
        assert lines == [(level, "vibe_rl", "Gradient norm 3") for level in "DIWE"] + [
            ("C", "vibe_rl.ppo", "Diverged")
        ]
        assert "".join(match[0] for match in LINE.finditer(err)) == err
        assert out == ""

    def test_the_time_is_the_record_s_in_local_time(self, capsys, logger):
        setup_logging()
        record = logger.makeRecord("vibe_rl", logging.INFO, "f", 1, "Starting", (), None)
        record.created, record.msecs = 1_771_162_222.0079, 7.9
        logger.handle(record)
        assert re.match(r"I 2026-02-1\d \d\d:\d\d:22\.007 \[vibe_rl\]", capsys.readouterr().err)

    @pytest.mark.parametrize("level", [logging.WARNING, "WARNING"])
    def test_the_level(self, capsys, logger, level):
        setup_logging(level)
        logger.info("no")
        logger.warning("yes")
        assert [match[3] for match in LINE.finditer(capsys.readouterr().err)] == ["yes"]

    def test_the_level_is_info_unless_given(self, capsys, logger):
        setup_logging()
        logger.debug("no")
        logger.info("yes")
        assert [match[3] for match in LINE.finditer(capsys.readouterr().err)] == ["yes"]

    def test_an_unknown_level_changes_nothing(self, logger):
        setup_logging()
        handlers = logger.handlers[:]
        with pytest.raises(ValueError, match="LOUD"):
            setup_logging("LOUD")
        assert logger.handlers == handlers

    def test_calling_it_again_replaces_what_was_there(self, capsys, logger, tmp_path):
        logger.addHandler(logging.FileHandler(tmp_path / "log", delay=True))
        for _ in range(3):
            setup_logging()
        logger.info("once")
        assert capsys.readouterr().err.count("once") == 1
        assert len(logger.handlers) == 1
        setup_logging(logging.DEBUG)
        logger.debug("seen")
        assert capsys.readouterr().err.count("seen") == 1

    def test_a_root_handler_on_the_console_prints_no_second_line(
        self, capsys, logger, root_handler
    ):
        from rich.console import Console
        from rich.logging import RichHandler

        root_handler(logging.StreamHandler(sys.stderr))
        setup_logging()
        root_handler(logging.StreamHandler(sys.stdout))
        root_handler(RichHandler(console=Console(stderr=True)))
        logger.warning("once")
        logging.getLogger("other").warning("thrice")
        out, err = capsys.readouterr()
        assert (out + err).count("once") == 1
        assert (out + err).count("thrice") == 3

    def test_other_root_handlers_still_get_what_their_level_admits(
        self, caplog, capsys, logger, root_handler, tmp_path
    ):
        file = root_handler(logging.FileHandler(tmp_path / "log"))
        file.setLevel(logging.WARNING)
        setup_logging()
        logger.info("Starting training")
        logger.warning("Gradient norm exceeded")
        assert caplog.messages == ["Starting training", "Gradient norm exceeded"]
        assert (tmp_path / "log").read_text() == "Gradient norm exceeded\n"

    def test_it_writes_to_what_stderr_is_when_it_writes(
        self, capsys, logger, monkeypatch, tmp_path
    ):
        setup_logging()
        with (tmp_path / "err").open("w") as file, monkeypatch.context() as patch:
            patch.setattr(sys, "stderr", file)
            logger.info("elsewhere")
        assert "elsewhere" in (tmp_path / "err").read_text()
        assert capsys.readouterr().err == ""

    def test_without_stderr_it_raises_nothing(self, logger, monkeypatch):
        setup_logging()
        monkeypatch.setattr(sys, "stderr", None)
        logger.info("nowhere")


def progress_line(caplog, *args, **kwargs):
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="vibe_rl"):
        log_step_progress(*args, **kwargs)
    (record,) = caplog.records
    return record.getMessage()


class TestLogStepProgress:
    def test_the_guide_s_example(self, capsys):
        setup_logging()
        log_step_progress(5000, 100_000, metrics={"loss": 0.42, "reward": 195.0})
        match = LINE.fullmatch(capsys.readouterr().err)
        assert match.groups() == (
            "I", "vibe_rl", "step 5000/100000 (5.0%) | loss=0.42 reward=195"
        )  # fmt: skip

    @pytest.mark.parametrize("metrics", [None, {}, {"step": 1, "wall_time": 2.0}])
    def test_without_metrics(self, caplog, metrics):
        assert progress_line(caplog, 1, 3, metrics) == "step 1/3 (33.3%)"

    def test_step_and_wall_time_are_left_out(self, caplog):
        metrics = {"step": 1, "loss": 2.0, "wall_time": 3.0}
        assert progress_line(caplog, 1, 2, metrics) == "step 1/2 (50.0%) | loss=2"

    def test_total_steps_of_zero_divides_by_nothing(self, caplog):
        assert progress_line(caplog, 0, 0) == "step 0/0 (0.0%)"
        assert progress_line(caplog, 7, 0) == "step 7/0 (0.0%)"

    def test_steps_of_numpy_and_jax(self, caplog):
        expected = "step 50000000/100000000 (50.0%)"  # 100 times the step is beyond 32 bits
        for kind in (np.int32, np.int64, jnp.int32, float):
            assert progress_line(caplog, kind(50_000_000), kind(100_000_000)) == expected

    def test_the_logger_may_be_another(self, caplog):
        progress_line(caplog, 1, 2, logger_name="vibe_rl.eval")
        assert caplog.records[0].name == "vibe_rl.eval"

    def test_the_record_names_its_caller(self, caplog):
        progress_line(caplog, 1, 2)
        assert caplog.records[0].funcName == "progress_line"

    def test_where_info_is_off_the_metrics_are_not_looked_at(self, logger):
        class Untouchable:
            def items(self):
                pytest.fail("looked at")

        logger.setLevel(logging.WARNING)
        log_step_progress(1, 2, Untouchable())


class TestFormatMetrics:
    @pytest.mark.parametrize(
        ("value", "text"),
        [
            (0.42, "0.42"),
            (195.0, "195"),
            (1 / 3, "0.333333"),
            (1e-9, "1e-09"),
            (3, "3"),
            (1_234_567, "1234567"),
            (12345678901234567890, "12345678901234567890"),
            (True, "True"),
            (float("nan"), "nan"),
            (float("-inf"), "-inf"),
            (None, "None"),
            ("two\nlines", "two lines"),
            (np.float32(0.42), "0.42"),
            (np.float64(195), "195"),
            (np.int64(1_234_567), "1234567"),
            (np.bool_(False), "False"),
            (np.array([0.42]), "0.42"),
            (np.array([1.0, 2.0]), "[1. 2.]"),
        ],
    )
    def test_a_value(self, value, text):
        assert format_metrics({"x": value}) == f"x={text}"

    def test_jax_values(self):
        metrics = {"a": jnp.array(0.42), "b": jnp.float32(195), "c": jnp.int32(1_234_567)}
        metrics |= {"d": jnp.array([[0.25]]), "e": jnp.bfloat16(0.5), "f": jnp.arange(2)}
        assert format_metrics(metrics) == "a=0.42 b=195 c=1234567 d=0.25 e=0.5 f=[0 1]"

    def test_an_array_of_many_lines_stays_on_one(self):
        assert "\n" not in format_metrics({"x": jax.numpy.zeros((50, 50))})


def test_importing_it_imports_neither_jax_nor_rich():
    code = """if True:
        import sys, vibe_rl.metrics.console, vibe_rl.metrics.progress
        sys.exit("jax" in sys.modules or "rich" in sys.modules)
    """
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
