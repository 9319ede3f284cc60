"""What logging costs a whole training run, and how the runner's speed compares.

    python benchmarks/training.py [--quick]

All runs train PPO on CartPole-v1 with the same sizes: 4 environments x 128 steps, 4 epochs x 4
minibatches, two layers of 64 units. They are compiled first, and take turns:

    plain      a loop written here for this comparison: one compiled scan, nothing but training
    unlogged   train_ppo without a run directory
    logged     train_ppo with a run directory and TensorBoard in a process of its own
    8 seeds    train_ppo with num_seeds=8, unlogged
"""

import argparse
import dataclasses
import statistics
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from vibe_rl.metrics import LogBackend, TensorBoardBackend, isolated
from vibe_rl.run_dir import RunDir
from vibe_rl.runner import PPOConfig, ppo, train_ppo
from vibe_rl.runner.environment import make_env

SIZES = {
    "num_envs": 4,
    "num_steps": 128,
    "update_epochs": 4,
    "num_minibatches": 4,
    "hidden_sizes": (64, 64),
    "eval_interval": 0,
    "checkpoint_interval": 0,
}


def seconds(
    config: PPOConfig, run_dir: RunDir | None = None, backends: Sequence[LogBackend] = ()
) -> float:
    """The time of a run, from its first record on: compilation comes before it."""
    marks: list[tuple[int, float]] = []

    def mark(step: int, *_: Any) -> None:
        marks.append((step, time.perf_counter()))

    train_ppo(config, run_dir=run_dir, backends=backends, callback=mark)
    (first_step, first), (last_step, last) = marks[0], marks[-1]
    return (last - first) * config.total_timesteps / (last_step - first_step)


def logged(config: PPOConfig) -> float:
    with tempfile.TemporaryDirectory() as directory:
        run = RunDir("training", directory)
        backends = [isolated(TensorBoardBackend, log_dir=run.logs)]
        return seconds(config, run, backends)


def plain(config: PPOConfig) -> float:
    """Training alone: the algorithm's steps in one compiled scan over all updates."""
    env = make_env(config.env_id, config.num_envs)
    state = ppo.init_train_state(config, env, jax.random.key(0))
    optimizer = ppo.make_optimizer(config)
    network = ppo.make_network(config, env)

    def update(carry: Any, _: None) -> tuple[Any, Any]:
        params, opt_state, env_state, obs, key = carry

        def step(carry: Any, _: None) -> tuple[Any, Any]:
            env_state, obs, key = carry
            key, action_key, env_key = jax.random.split(key, 3)
            policy, value = network.policy(params, obs), network.value(params, obs)
            action = policy.sample(action_key)
            new_obs, env_state, outcome = env.step(env_key, env_state, action)
            row = (obs, action, policy.log_prob(action), value, outcome.reward, outcome.done)
            return (env_state, new_obs, key), row

        (env_state, obs, key), rows = jax.lax.scan(
            step, (env_state, obs, key), length=config.num_steps
        )
        last_value = network.value(params, obs)

        def back(carry: Any, row: Any) -> tuple[Any, Any]:
            advantage, next_value = carry
            _, _, _, value, reward, done = row
            delta = reward + config.gamma * next_value * (1 - done) - value
            advantage = delta + config.gamma * config.gae_lambda * (1 - done) * advantage
            return (advantage, value), advantage

        _, advantages = jax.lax.scan(
            back, (jnp.zeros_like(last_value), last_value), rows, reverse=True
        )
        observations, actions, log_probs, values, _, _ = rows
        columns = (observations, actions, log_probs, values, advantages, advantages + values)
        batch = ppo.Batch(*(x.reshape(-1, *x.shape[2:]) for x in columns))

        def epoch(carry: Any, _: None) -> tuple[Any, Any]:
            params, opt_state, key = carry
            key, order_key = jax.random.split(key)
            order = jax.random.permutation(order_key, config.steps_per_update)
            order = order.reshape(config.num_minibatches, -1)

            def gradient_step(carry: Any, minibatch: Any) -> tuple[Any, None]:
                params, opt_state = carry
                grads, _ = jax.grad(ppo.loss, has_aux=True)(params, network, minibatch, config)
                updates, opt_state = optimizer.update(grads, opt_state, params)
                return (optax.apply_updates(params, updates), opt_state), None

            minibatches = jax.tree.map(lambda x: x[order], batch)
            (params, opt_state), _ = jax.lax.scan(gradient_step, (params, opt_state), minibatches)
            return (params, opt_state, key), None

        (params, opt_state, key), _ = jax.lax.scan(
            epoch, (params, opt_state, key), length=config.update_epochs
        )
        return (params, opt_state, env_state, obs, key), None

    carry = (state.params, state.opt_state, state.env_state, state.obs, state.key)
    run = jax.jit(lambda carry: jax.lax.scan(update, carry, length=config.num_updates)[0])
    run = run.lower(carry).compile()
    start = time.perf_counter()
    jax.block_until_ready(run(carry))
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few steps, one round")
    quick = parser.parse_args().quick
    budget = {"total_timesteps": 10_240, "log_interval": 1_024} if quick else {}
    config = PPOConfig(**budget, **SIZES)
    many = dataclasses.replace(config, num_seeds=8)
    cases = {
        "plain": lambda: plain(config),
        "unlogged": lambda: seconds(config),
        "logged": lambda: logged(config),
        "8 seeds": lambda: seconds(many),
    }
    times = {name: [] for name in cases}
    for _ in range(1 if quick else 5):
        for name, run in cases.items():
            times[name].append(run())
    unlogged = statistics.median(times["unlogged"])
    print(f"PPO, CartPole-v1, {config.total_timesteps:,} steps, after compilation")
    for name, values in times.items():
        ratios = [value / base for value, base in zip(values, times["unlogged"], strict=True)]
        ratio = statistics.median(ratios)
        print(f"{name:10} {statistics.median(values):8.2f} s {ratio:8.2f} x unlogged")
    print(f"8 seeds cost {statistics.median(times['8 seeds']) / (8 * unlogged):.2f} of 8 runs")


if __name__ == "__main__":
    main()
