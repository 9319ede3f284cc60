"""What each algorithm learns: five seeds of each, judged by episodes with fresh seeds.

    python benchmarks/learning.py [--quick] [NAME ...]

The seeds train side by side. Each final agent plays `EPISODES` episodes without exploration. All
settings are the defaults but the environment and the steps. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from vibe_rl.runner import (
    DQNConfig,
    PPOConfig,
    SACConfig,
    train_dqn,
    train_ppo,
    train_sac,
)

SEEDS = 5
EPISODES = 100


class Case(NamedTuple):
    """A row of the table.

    Attributes:
        train: Trains.
        config: The settings.
        threshold: Return that a seed must reach.
    """

    train: Callable[..., Any]
    config: Any
    threshold: float


PENDULUM = PPOConfig(env_id="Pendulum-v1", total_timesteps=1_000_000)
CASES = {
    "ppo": Case(train_ppo, PPOConfig(), 475),
    "dqn": Case(train_dqn, DQNConfig(), 450),
    "sac": Case(train_sac, SACConfig(), -200),
    "ppo-continuous": Case(train_ppo, PENDULUM, -300),
}


def measure(case: Case, *, quick: bool) -> str:
    """Train all seeds, and give the row."""
    config = dataclasses.replace(
        case.config, num_seeds=SEEDS, eval_interval=2**31, eval_episodes=EPISODES
    )
    if quick:
        config = dataclasses.replace(
            config, total_timesteps=2_000, num_seeds=2, eval_episodes=2, hidden_sizes=(4,)
        )
    start = time.perf_counter()
    _, metrics = case.train(config)
    seconds = time.perf_counter() - start
    returns = np.asarray(metrics["eval_return_mean"])[:, -1]
    reached = int(np.sum(returns >= case.threshold))
    name = case.train.__name__.removeprefix("train_").upper()
    cells = [
        name,
        config.env_id,
        f"{int(metrics['step'][0, -1]):,}",
        ", ".join(f"{each:.0f}" for each in returns),
        f"{reached} of {len(returns)} ≥ {case.threshold:.0f}",
        f"{seconds:.0f} s",
    ]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few steps: does it run at all?")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(CASES)}; or all")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(CASES):
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(CASES)}")
    print(f"On {jax.devices()[0].device_kind}, JAX {jax.__version__}\n")
    print("| Algorithm | Environment | Steps | Return of each seed | Reached | All seeds took |")
    print("|---|---|--:|---|---|--:|")
    for name in arguments.names or CASES:
        print(measure(CASES[name], quick=arguments.quick), flush=True)


if __name__ == "__main__":
    main()
