"""A Gymnasium loop: Python environments, a JAX policy, REINFORCE.

    python gymnasium_loop.py [--episodes 300]

Records of two kinds go into one file: one a gradient step, and one an episode, which are told
apart by their fields.

Needs `pip install '.[train]'` in the project's directory, which brings gymnasium along.
"""

import argparse

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import optax

from vibe_rl.metrics import MetricsLogger
from vibe_rl.run_dir import RunDir

MAX_STEPS = 500
optimizer = optax.adam(1e-2)


def init(key: jax.Array) -> dict[str, jax.Array]:
    """Weights of a policy with one hidden layer."""
    first, second = jax.random.split(key)
    return {
        "hidden": 0.5 * jax.random.normal(first, (4, 32)),
        "out": 0.1 * jax.random.normal(second, (32, 2)),
    }


def log_policy(params: dict[str, jax.Array], obs: jax.Array) -> jax.Array:
    """Logarithms of the actions' probabilities, `(..., 2)`."""
    return jax.nn.log_softmax(jnp.tanh(obs @ params["hidden"]) @ params["out"])


@jax.jit
def act(params: dict[str, jax.Array], obs: jax.Array, key: jax.Array) -> jax.Array:
    """Draw an action."""
    return jax.random.categorical(key, log_policy(params, obs))


@jax.jit
def learn(
    params: dict[str, jax.Array],
    opt_state: optax.OptState,
    obs: jax.Array,
    action: jax.Array,
    advantage: jax.Array,
) -> tuple[dict[str, jax.Array], optax.OptState, dict[str, jax.Array]]:
    """One gradient step; episodes are padded to `MAX_STEPS`, with no advantage, to compile once."""

    def loss_fn(params: dict[str, jax.Array]) -> jax.Array:
        chosen = jnp.take_along_axis(log_policy(params, obs), action[:, None], axis=1)[:, 0]
        return -jnp.sum(chosen * advantage) / jnp.maximum(1, jnp.sum(advantage != 0))

    loss, grads = jax.value_and_grad(loss_fn)(params)
    updates, opt_state = optimizer.update(grads, opt_state)
    metrics = {"actor_loss": loss, "grad_norm": optax.global_norm(grads)}
    return optax.apply_updates(params, updates), opt_state, metrics


def pad(values: list, dtype: type) -> np.ndarray:
    """`values` and zeros, `MAX_STEPS` in all."""
    array = np.asarray(values, dtype)
    return np.concatenate([array, np.zeros((MAX_STEPS - len(array), *array.shape[1:]), dtype)])


def main(episodes: int) -> None:
    """Train, and log each episode and each gradient step."""
    env = gymnasium.make("CartPole-v1", max_episode_steps=MAX_STEPS)
    key = jax.random.key(0)
    params = init(key)
    opt_state = optimizer.init(params)
    step = 0
    with MetricsLogger(RunDir("reinforce"), defer=1) as logger:
        for episode in range(episodes):
            obs, _ = env.reset(seed=episode)
            seen, actions, rewards, done = [], [], [], False
            while not done:
                action = int(act(params, obs, jax.random.fold_in(key, step)))
                seen.append(obs)
                actions.append(action)
                obs, reward, terminated, truncated, _ = env.step(action)
                rewards.append(reward)
                done = terminated or truncated
                step += 1
            logger.write(
                {
                    "step": step,
                    "episode": episode,
                    "episode_return": sum(rewards),
                    "episode_length": len(rewards),
                }
            )
            returns = np.cumsum(rewards[::-1])[::-1]
            advantage = (returns - returns.mean()) / (returns.std() + 1e-8)
            params, opt_state, metrics = learn(
                params,
                opt_state,
                pad(seen, np.float32),
                pad(actions, np.int32),
                pad(advantage, np.float32),
            )
            logger.write({"step": step, **metrics})


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--episodes", type=int, default=300)
    main(parser.parse_args().episodes)
