"""A whole reinforcement-learning run in one compiled scan, for eight seeds at once, logged live.

    python purejaxrl_style.py [--updates 300]

An actor-critic in the style of purejaxrl: environment, learning and loop are one `jit`. Two lines
make it log while it runs: `logger.scan` in place of `jax.lax.scan`, and the logger around it.

Needs `pip install '.[train]'` in the project's directory, for gymnax, flax and optax.
"""

import argparse
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import gymnax
import jax
import jax.numpy as jnp
import optax
from gymnax.wrappers.purerl import LogWrapper

from vibe_rl.metrics import MetricsLogger
from vibe_rl.run_dir import RunDir

NUM_ENVS, NUM_STEPS, GAMMA = 16, 32, 0.99


class ActorCritic(nn.Module):
    """An actor and a critic that share a hidden layer."""

    num_actions: int

    @nn.compact
    def __call__(self, obs: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Logits of the actions, and the value of the state."""
        hidden = nn.tanh(nn.Dense(64)(obs))
        return nn.Dense(self.num_actions)(hidden), nn.Dense(1)(hidden)[..., 0]


class State(NamedTuple):
    """What one update hands to the next."""

    params: Any
    opt_state: Any
    env_state: Any
    obs: jax.Array
    key: jax.Array


base_env, env_params = gymnax.make("CartPole-v1")
env = LogWrapper(base_env)
network = ActorCritic(base_env.num_actions)
optimizer = optax.chain(optax.clip_by_global_norm(0.5), optax.adam(3e-3))


def init(key: jax.Array) -> State:
    """The state before the first update."""
    params_key, env_key, key = jax.random.split(key, 3)
    obs, env_state = jax.vmap(env.reset, (0, None))(jax.random.split(env_key, NUM_ENVS), env_params)
    params = network.init(params_key, obs)
    return State(params, optimizer.init(params), env_state, obs, key)


def env_step(params: Any, carry: tuple, _: None) -> tuple[tuple, tuple]:
    """Act once in every environment."""
    env_state, obs, key = carry
    action_key, step_key, key = jax.random.split(key, 3)
    action = jax.random.categorical(action_key, network.apply(params, obs)[0])
    next_obs, env_state, reward, terminated, truncated, info = jax.vmap(env.step, (0, 0, 0, None))(
        jax.random.split(step_key, NUM_ENVS), env_state, action, env_params
    )
    seen = (obs, action, reward, terminated | truncated, info)
    return (env_state, next_obs, key), seen


def update(state: State, _: None) -> tuple[State, dict[str, jax.Array]]:
    """Collect steps, learn from them once, and say how it went."""
    carry = (state.env_state, state.obs, state.key)
    step = partial(env_step, state.params)
    (env_state, last_obs, key), seen = jax.lax.scan(step, carry, length=NUM_STEPS)
    obs, action, reward, done, info = seen
    last_value = network.apply(state.params, last_obs)[1]

    def backwards(following: jax.Array, at: tuple) -> tuple[jax.Array, jax.Array]:
        reward, done = at
        following = reward + GAMMA * jnp.where(done, 0.0, following)
        return following, following

    _, returns = jax.lax.scan(backwards, last_value, (reward, done), reverse=True)

    def loss_fn(params: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
        logits, value = network.apply(params, obs)
        log_probs = jax.nn.log_softmax(logits)
        chosen = jnp.take_along_axis(log_probs, action[..., None], axis=-1)[..., 0]
        advantage = jax.lax.stop_gradient(returns - value)
        advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        entropy = -jnp.sum(jnp.exp(log_probs) * log_probs, axis=-1).mean()
        actor_loss = -jnp.mean(chosen * advantage)
        critic_loss = jnp.mean((returns - value) ** 2)
        metrics = {"actor_loss": actor_loss, "critic_loss": critic_loss, "entropy": entropy}
        return actor_loss + 0.5 * critic_loss - 0.01 * entropy, metrics

    grads, metrics = jax.grad(loss_fn, has_aux=True)(state.params)
    updates, opt_state = optimizer.update(grads, state.opt_state)
    params = optax.apply_updates(state.params, updates)
    metrics["episode_return"] = info["returned_episode_returns"][-1].mean()
    return State(params, opt_state, env_state, last_obs, key), metrics


def main(updates: int) -> None:
    """Train eight seeds side by side."""
    run = RunDir("actor_critic")
    with MetricsLogger(run) as logger:

        @jax.jit
        @jax.vmap
        def train(key: jax.Array) -> State:
            # Without logging, this line would call jax.lax.scan, with neither `every` nor `lane`.
            state, _ = logger.scan(update, init(key), length=updates, every=10, lane="seed")
            return state

        jax.block_until_ready(train(jax.random.split(jax.random.key(0), 8)))
    print(f"{8 * updates} records in {run.log_path()}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--updates", type=int, default=300)
    main(parser.parse_args().updates)
