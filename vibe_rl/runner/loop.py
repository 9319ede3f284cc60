"""The training loop that every algorithm shares: compiled stretches that log live."""

import dataclasses
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np

from vibe_rl.metrics import LogBackend, MetricsLogger, TrainingProgress
from vibe_rl.run_dir import RunDir
from vibe_rl.runner.compiled import Algorithm, Compiled
from vibe_rl.runner.config import TrainConfig
from vibe_rl.runner.environment import VectorEnv
from vibe_rl.runner.history import History
from vibe_rl.runner.schedule import plan

Record = dict[str, Any]
"""What is logged: names to numbers."""

Callback = Callable[[int, Any, Record], None]
"""Called as `callback(step, train_state, metrics)`."""


def run_loop(
    algorithm: Algorithm,
    config: TrainConfig,
    env: VectorEnv,
    *,
    run_dir: RunDir | None,
    backends: Sequence[LogBackend],
    callback: Callback | None,
    progress: bool,
) -> tuple[Any, dict[str, np.ndarray]]:
    """Train, log, evaluate and save, and go on from the run's latest checkpoint if it has one.

    One function is compiled that trains from one stop on the host to the next: an evaluation, a
    checkpoint, or, with a callback or a progress bar, each record.

    Args:
        algorithm: What to train.
        config: The settings.
        env: The environments.
        run_dir: See `train_ppo`, as for what follows.
        backends: See there.
        callback: See there.
        progress: See there.

    Returns:
        The last state, and the history.

    Raises:
        TypeError: If `run_dir` is no `RunDir`.
        ValueError: If there are backends but no run directory, or if the run directory holds a run
            with other settings.
    """
    if not isinstance(run_dir, RunDir | None):
        raise TypeError(f"run_dir is a RunDir, not {run_dir!r}; RunDir(run_id=...) opens a run")
    if backends and run_dir is None:
        raise ValueError("backends follow the run's metrics file: give a run_dir too")
    config = dataclasses.replace(config, env_id=env.name)
    compiled = Compiled(algorithm, config, env)
    state, history, done = compiled.init(), History(), 0
    with ExitStack() as stack:
        logger = None
        if run_dir is not None:
            run_dir.save_config(config)
            logger = stack.enter_context(MetricsLogger(run_dir.log_path(), backends=backends))
        bar = None
        if progress:
            total = config.num_updates * config.steps_per_update
            bar = stack.enter_context(TrainingProgress(total))

        for stretch in plan(config, done, stop_at_records=callback is not None or progress):
            state, records = compiled.train(state, stretch, logger)
            history.add(records)
            step = int(stretch.step[-1])
            latest = {name: values[..., -1] for name, values in records.items()}
            if stretch.evaluate:
                evaluation = compiled.evaluate(state, step)
                _log(evaluation, logger)
                history.add_evaluation(evaluation)
                latest |= evaluation
            if bar is not None:
                bar.update(step, {name: np.mean(values) for name, values in latest.items()})
            if callback is not None:
                callback(step, state, latest)
    return state, history.arrays()


def _log(record: Record, logger: MetricsLogger | None) -> None:
    """Log a record, or those of several seeds."""
    if logger is None:
        return
    if record["step"].ndim:
        logger.write_batch(record)
    else:
        logger.write(record)
