"""What logging costs a whole training run, and how the runner's speed compares.

    python -m benchmarks.training [--quick]

All runs train PPO on CartPole-v1 with the same sizes: 4 environments x 128 steps, 4 epochs x 4
minibatches, two layers of 64 units. They are compiled first, and take turns; in each of eight
rounds, another seed trains:

    plain      a loop of its own that does nothing but train: see `plain_ppo`
    unlogged   train_ppo without a run directory
    logged     train_ppo with a run directory and TensorBoard in a process of its own
    8 seeds    train_ppo with num_seeds=8, unlogged, in three rounds; compared with the sum of the
               eight unlogged runs

Takes about six minutes.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time
from collections.abc import Sequence
from typing import Any
from unittest import mock

import jax
import numpy as np

from benchmarks import plain_ppo
from benchmarks.results import machine
from vibe_rl.metrics import LogBackend, TensorBoardBackend, isolated
from vibe_rl.run_dir import RunDir
from vibe_rl.runner import PPOConfig, train_ppo
from vibe_rl.runner.compiled import Compiled

SEEDS = 8
SIZES = {
    "num_envs": plain_ppo.ENVS,
    "num_steps": plain_ppo.STEPS,
    "update_epochs": plain_ppo.EPOCHS,
    "num_minibatches": plain_ppo.MINIBATCHES,
    "hidden_sizes": plain_ppo.UNITS,
    "eval_interval": 0,
    "checkpoint_interval": 0,
}


class Timed(Compiled):
    """A run's functions, which note how long the compiled training takes."""

    seconds = 0.0

    def _compile(self, *args: Any) -> Any:
        run = super()._compile(*args)

        def timed(*args: Any) -> Any:
            start = time.perf_counter()
            result = jax.block_until_ready(run(*args))
            Timed.seconds += time.perf_counter() - start
            return result

        return timed


def plain(config: PPOConfig) -> float:
    run, state = plain_ppo.make(config.total_timesteps, config.seed)
    start = time.perf_counter()
    jax.block_until_ready(run(state))
    seconds = time.perf_counter() - start
    return seconds * config.total_timesteps / plain_ppo.whole_updates(config.total_timesteps)


def unlogged(
    config: PPOConfig, run_dir: RunDir | None = None, backends: Sequence[LogBackend] = ()
) -> float:
    """The time of a run without its compilation; no callback makes it stop at each record."""
    Timed.seconds = 0.0
    with mock.patch("vibe_rl.runner.loop.Compiled", Timed):
        train_ppo(config, run_dir=run_dir, backends=backends)
    return Timed.seconds * config.total_timesteps / (config.num_updates * config.steps_per_update)


def logged(config: PPOConfig) -> float:
    with tempfile.TemporaryDirectory() as directory:
        run = RunDir("training", directory)
        return unlogged(config, run, [isolated(TensorBoardBackend, log_dir=run.logs)])


def spread(values: np.ndarray) -> str:
    return f"{np.median(values):.2f} ({values.min():.2f} to {values.max():.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few steps: does it run at all?")
    quick = parser.parse_args().quick
    budget = {"total_timesteps": 1_024, "log_interval": 512} if quick else {}
    config = PPOConfig(**budget, **SIZES)
    cases = {"plain": plain, "unlogged": unlogged, "logged": logged}
    taken: dict[str, list[float]] = {name: [] for name in cases}
    together = []
    for seed in [1] if quick else range(SEEDS):  # the first with which all four are run
        single = dataclasses.replace(config, seed=seed)
        for name in cases if seed % 2 else reversed(cases):
            taken[name].append(cases[name](single))
        if seed % 3 == 1:
            together.append(unlogged(dataclasses.replace(config, num_seeds=SEEDS)))

    seconds = {name: np.array(values) for name, values in taken.items()}
    print(f"{machine()}, JAX {jax.__version__}")
    print(f"PPO, CartPole-v1, {config.total_timesteps:,} steps, seconds without compilation")
    for name, values in {**seconds, "8 seeds": np.array(together)}.items():
        print(f"{name:19} {spread(values)}")
    print("Ratios within a round; here as above, the median and the range:")
    print(f"unlogged / plain    {spread(seconds['unlogged'] / seconds['plain'])}")
    print(f"logged / unlogged   {spread(seconds['logged'] / seconds['unlogged'])}")
    apart = seconds["unlogged"].mean() * SEEDS
    print(f"8 seeds / 8 runs    {spread(np.array(together) / apart)}")


if __name__ == "__main__":
    main()
