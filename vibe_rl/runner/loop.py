"""The training loop that every algorithm shares: compiled chunks, and a record after each."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import jax
import numpy as np

from vibe_rl.metrics import LogBackend, MetricsLogger, TrainingProgress
from vibe_rl.run_dir import RunDir
from vibe_rl.runner.config import PPOConfig
from vibe_rl.runner.environment import VectorEnv

Record = dict[str, Any]
"""What is logged: names to numbers."""

Callback = Callable[[int, Any, Record], None]
"""Called as `callback(step, train_state, metrics)`."""

History = dict[str, np.ndarray]
"""Each field of a run's records as an array with one value for each record."""


def run_loop(
    init: jax.stages.Wrapped,
    chunk: jax.stages.Wrapped,
    config: PPOConfig,
    env: VectorEnv,
    *,
    run_dir: RunDir | None,
    backends: Sequence[LogBackend],
    callback: Callback | None,
    progress: bool,
) -> tuple[Any, History]:
    """Train in equal chunks of one compiled function, and log a record after each, live.

    Args:
        init: Jitted; `init(config, env, key)` gives the first state. `config` and `env` are static.
        chunk: Jitted; `chunk(config, env, state)` trains for `config.steps_per_record` steps and
            gives the new state and the metrics, a NamedTuple of scalars.
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
        ValueError: If there are backends but no run directory.
    """
    if not isinstance(run_dir, RunDir | None):
        raise TypeError(f"run_dir is a RunDir, not {run_dir!r}; RunDir(run_id=...) opens a run")
    if backends and run_dir is None:
        raise ValueError("backends follow the run's metrics file: give a run_dir too")
    records: list[Record] = []
    with ExitStack() as stack:
        logger = None
        if run_dir is not None:
            run_dir.save_config(config)
            logger = stack.enter_context(MetricsLogger(run_dir.log_path(), backends=backends))
        bar = None
        if progress:
            bar = stack.enter_context(
                TrainingProgress(config.num_records * config.steps_per_record)
            )

        # The seed acts through the key alone: without it, one compilation serves all seeds.
        static = dataclasses.replace(config, seed=0)
        state = init(static, env, jax.random.key(config.seed))
        train = chunk.lower(static, env, state).compile()

        last_time = time.perf_counter()
        for nth in range(1, config.num_records + 1):
            state, metrics = train(state)
            step = nth * config.steps_per_record
            metrics = jax.device_get(metrics)  # waits for the chunk
            record = {"step": step} | {k: v[()] for k, v in metrics._asdict().items()}
            now = time.perf_counter()
            record["steps_per_second"] = config.steps_per_record / (now - last_time)
            last_time = now

            records.append(record)
            if logger is not None:
                logger.write(record)
            if bar is not None:
                bar.update(step, record)
            if callback is not None:
                callback(step, state, record)
    return state, {name: np.array([record[name] for record in records]) for name in records[0]}
