"""The training loop that every algorithm shares: compiled stretches that log live."""

import dataclasses
import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np

from vibe_rl.metrics import LogBackend, MetricsLogger, TrainingProgress
from vibe_rl.metrics.settings import checked_backends
from vibe_rl.metrics.supersede import superseded_path
from vibe_rl.run_dir import RunDir
from vibe_rl.runner.checkpoints import Checkpoints, Saved
from vibe_rl.runner.compiled import Algorithm, Compiled
from vibe_rl.runner.config import TrainConfig
from vibe_rl.runner.curve import save_learning_curve
from vibe_rl.runner.history import History
from vibe_rl.runner.run_lock import training_alone
from vibe_rl.runner.run_settings import check_settings, save_settings
from vibe_rl.runner.schedule import Stretch, plan

_logger = logging.getLogger(__name__)

Record = dict[str, Any]
"""What is logged: names to numbers."""

Callback = Callable[[int, Any, Record], None]
"""Called as `callback(step, train_state, metrics)`."""


def run_loop(
    algorithm: Algorithm,
    config: TrainConfig,
    env: Any,
    *,
    run_dir: RunDir | None,
    backends: Sequence[LogBackend],
    callback: Callback | None,
    progress: bool,
) -> tuple[Any, dict[str, np.ndarray]]:
    """Train, log, evaluate and save, and go on from the run's latest checkpoint if it has one.

    At the end, the run's directory gets a picture of its returns.

    One function is compiled that trains from one stop on the host to the next: an evaluation, a
    checkpoint, or, with a callback or a progress bar, each record.

    Args:
        algorithm: What to train.
        config: The settings.
        env: An environment in place of the config's; or None. See `train_ppo`, as for what follows.
        run_dir: See there.
        backends: See there. They are closed in any case.
        callback: See there.
        progress: See there.

    Returns:
        The last state, and the history.

    Raises:
        TypeError: If `config` is of another algorithm, `env` no environment, `run_dir` no `RunDir`,
            or a backend none.
        ValueError: If the algorithm can't act in the environment, if there are backends but no run
            directory, or if the run directory holds a run with other settings.
        OSError: If a training is under way in the run directory, or another logger has the metrics
            file open, and records would have to make way.
    """
    checked_backends(backends)
    with ExitStack() as stack:
        unowned = stack.enter_context(ExitStack())
        for backend in backends:
            unowned.callback(backend.close)
        if not isinstance(run_dir, RunDir | None):
            raise TypeError(f"run_dir is a RunDir, not {run_dir!r}; RunDir(run_id=...) opens a run")
        if backends and run_dir is None:
            raise ValueError("backends follow the run's metrics file: give a run_dir too")
        envs = algorithm.make_env(config, env)
        config = dataclasses.replace(config, env_id=envs.name)
        compiled = Compiled(algorithm, config, envs)
        checkpoints = logger = bar = None
        if run_dir is not None:
            stack.enter_context(training_alone(run_dir))
            check_settings(run_dir, config, envs)  # before anything compiles
            checkpoints = stack.enter_context(Checkpoints(run_dir, config))
        restored = checkpoints.restore(compiled.init) if checkpoints is not None else None
        run = restored or Saved(compiled.init(), 0, History())
        if run_dir is not None:
            logger = stack.enter_context(_open_log(run_dir, backends, config, run.done))
            unowned.pop_all()
            save_settings(run_dir, config, envs)  # once nothing refuses the run any more
        if progress:
            total = config.num_updates * config.steps_per_update
            bar = stack.enter_context(TrainingProgress(total))
        run = _train(compiled, config, run, checkpoints, logger, bar, callback)
    history = run.history.arrays()
    if run_dir is not None:
        save_learning_curve(run_dir, history["episode_return"])
    return run.state, history


def _train(  # noqa: PLR0917 - what `run_loop` has opened
    compiled: Compiled,
    config: TrainConfig,
    run: Saved,
    checkpoints: Checkpoints | None,
    logger: MetricsLogger | None,
    bar: TrainingProgress | None,
    callback: Callback | None,
) -> Saved:
    """Go from stop to stop, to the end."""
    stop_at_records = callback is not None or bar is not None
    for stretch in plan(config, run.done, stop_at_records=stop_at_records):
        state, records = compiled.train(run.state, stretch, logger)
        run = Saved(state, stretch.done, run.history)
        run.history.add(records)
        step = int(stretch.step[-1])
        latest = {name: values[..., -1] for name, values in records.items()}
        if stretch.evaluate:
            evaluation = compiled.evaluate(state, step)
            _log(evaluation, logger)
            run.history.add_evaluation(evaluation)
            latest |= evaluation
        if checkpoints and logger and _should_save(config, stretch, run.history):
            logger.flush(backends=False)  # what the run won't log again if it is killed
            checkpoints.save(run)
        _show(step, latest, bar)
        if callback is not None:
            callback(step, state, latest)
    return run


def _open_log(
    run_dir: RunDir, backends: Sequence[LogBackend], config: TrainConfig, done: int
) -> MetricsLogger:
    """Open the run's log where its checkpoint ends; or its beginning, if it has none."""
    path = run_dir.log_path()
    superseded = superseded_path(path)
    before = superseded.stat().st_size if superseded.exists() else 0
    logger = MetricsLogger(path, backends=backends, resume_step=done * config.steps_per_update)
    if not done and superseded.exists() and superseded.stat().st_size > before:
        _logger.warning(
            "%s has no checkpoint, so that the run begins anew; what it had logged is in %s",
            run_dir.root,
            superseded,
        )
    return logger


def _should_save(config: TrainConfig, stretch: Stretch, history: History) -> bool:
    """When a checkpoint is due; and after the best evaluation so far, so that it has one."""
    is_best = stretch.evaluate and history.best_step() == int(stretch.step[-1])
    return config.checkpoint_interval > 0 and (stretch.save or is_best)


def _log(record: Record, logger: MetricsLogger | None) -> None:
    """Log a record, or those of several seeds."""
    if logger is None:
        return
    if record["step"].ndim:
        logger.write_batch(record)
    else:
        logger.write(record)


def _show(step: int, record: Record, bar: TrainingProgress | None) -> None:
    """Show a record on the progress bar, the mean of several seeds."""
    if bar is not None:
        bar.update(step, {name: np.mean(record[name]) for name in record if name != "seed"})
