"""PPO for CartPole-v1 as a loop of its own: what `train_ppo` is compared with.

It takes the form that made JAX's reinforcement learning known for its speed (purejaxrl): all
updates in one compiled scan, the critic asked at each step, minibatches cut from a shuffled batch.
It shares no code with the runners. It does less than they do: it treats a time limit as an end,
scales no rewards, and reports nothing until it is over.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import flax.linen as nn
import gymnax
import jax
import jax.numpy as jnp
import optax
from gymnax.wrappers.purerl import FlattenObservationWrapper, LogWrapper

ENVS, STEPS = 4, 128
EPOCHS, MINIBATCHES = 4, 4
UNITS = (64, 64)
GAMMA, LAMBDA, CLIP = 0.99, 0.95, 0.2
VALUE_COEF, ENTROPY_COEF, MAX_NORM, LEARNING_RATE = 0.5, 0.01, 0.5, 2.5e-4


class Row(NamedTuple):
    """A step of every environment, as it is learned from."""

    obs: jax.Array
    action: jax.Array
    log_prob: jax.Array
    value: jax.Array
    reward: jax.Array
    done: jax.Array
    episode_return: jax.Array


class Network(nn.Module):
    """Logits and a value, from two stacks of layers."""

    num_actions: int

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:  # noqa: D102 (flax's own)
        heads = []
        for size, scale in ((self.num_actions, 0.01), (1, 1.0)):
            hidden = x
            for units in UNITS:
                hidden = nn.Dense(units, kernel_init=nn.initializers.orthogonal(2**0.5))(hidden)
                hidden = nn.tanh(hidden)
            heads.append(nn.Dense(size, kernel_init=nn.initializers.orthogonal(scale))(hidden))
        return heads[0], heads[1][..., 0]


def make(total_steps: int, seed: int) -> tuple[Any, Any]:  # noqa: PLR0915 (one page, like its model)
    """Compile a run: gives `run(carry)`, whose second result is the mean return of each update.

    Args:
        total_steps: Environment steps of the run.
        seed: Decides all that is random.

    Returns:
        The compiled function, and what it begins from.
    """
    env, env_params = gymnax.make("CartPole-v1")
    env = LogWrapper(FlattenObservationWrapper(env))
    reset = jax.vmap(env.reset, in_axes=(0, None))
    env_step = jax.vmap(env.step, in_axes=(0, 0, 0, None))
    network = Network(env.action_space(env_params).n)
    num_updates = whole_updates(total_steps) // (ENVS * STEPS)
    schedule = optax.linear_schedule(LEARNING_RATE, 0.0, num_updates * EPOCHS * MINIBATCHES)
    optimizer = optax.chain(optax.clip_by_global_norm(MAX_NORM), optax.adam(schedule, eps=1e-5))

    def act(carry: Any, _: None) -> tuple[Any, Row]:
        params, env_state, obs, key = carry
        key, action_key, env_key = jax.random.split(key, 3)
        logits, value = network.apply(params, obs)
        action = jax.random.categorical(action_key, logits)
        log_prob = pick(jax.nn.log_softmax(logits), action)
        keys = jax.random.split(env_key, ENVS)
        new_obs, env_state, reward, end, cut, info = env_step(keys, env_state, action, env_params)
        episode_return = info["returned_episode_returns"]
        row = Row(obs, action, log_prob, value, reward, end | cut, episode_return)
        return (params, env_state, new_obs, key), row

    def advantage_before(carry: Any, row: Row) -> tuple[Any, jax.Array]:
        advantage, next_value = carry
        goes_on = 1.0 - row.done
        delta = row.reward + GAMMA * next_value * goes_on - row.value
        advantage = delta + GAMMA * LAMBDA * goes_on * advantage
        return (advantage, row.value), advantage

    def loss(params: Any, rows: Row, advantage: jax.Array, target: jax.Array) -> jax.Array:
        logits, value = network.apply(params, rows.obs)
        log_probs = jax.nn.log_softmax(logits)
        ratio = jnp.exp(pick(log_probs, rows.action) - rows.log_prob)
        advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        gain = jnp.minimum(ratio * advantage, jnp.clip(ratio, 1 - CLIP, 1 + CLIP) * advantage)
        entropy = -jnp.sum(jnp.exp(log_probs) * log_probs, axis=-1)
        error = 0.5 * jnp.square(value - target)
        return jnp.mean(-gain + VALUE_COEF * error - ENTROPY_COEF * entropy)

    def descend(carry: Any, minibatch: Any) -> tuple[Any, None]:
        params, opt_state = carry
        grads = jax.grad(loss)(params, *minibatch)
        change, opt_state = optimizer.update(grads, opt_state, params)
        return (optax.apply_updates(params, change), opt_state), None

    def update(carry: Any, _: None) -> tuple[Any, jax.Array]:
        params, opt_state, env_state, obs, key = carry
        acting, rows = jax.lax.scan(act, (params, env_state, obs, key), length=STEPS)
        _, env_state, obs, key = acting
        last_value = network.apply(params, obs)[1]
        _, advantages = jax.lax.scan(
            advantage_before, (jnp.zeros(ENVS), last_value), rows, reverse=True
        )
        batch = (rows, advantages, advantages + rows.value)
        batch = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), batch)

        def epoch(carry: Any, key: jax.Array) -> tuple[Any, None]:
            order = jax.random.permutation(key, ENVS * STEPS)
            cut = (MINIBATCHES, -1)
            minibatches = jax.tree.map(lambda x: x[order].reshape(*cut, *x.shape[1:]), batch)
            return jax.lax.scan(descend, carry, minibatches)

        key, epoch_key = jax.random.split(key)
        keys = jax.random.split(epoch_key, EPOCHS)
        (params, opt_state), _ = jax.lax.scan(epoch, (params, opt_state), keys)
        return (params, opt_state, env_state, obs, key), rows.episode_return.mean()

    key, env_key, network_key = jax.random.split(jax.random.key(seed), 3)
    obs, env_state = reset(jax.random.split(env_key, ENVS), env_params)
    params = network.init(network_key, obs)
    carry = (params, optimizer.init(params), env_state, obs, key)
    run = jax.jit(lambda carry: jax.lax.scan(update, carry, length=num_updates))
    return run.lower(carry).compile(), carry


def whole_updates(total_steps: int) -> int:
    """The steps that a run really does: those of whole updates."""
    return total_steps // (ENVS * STEPS) * (ENVS * STEPS)


def pick(columns: jax.Array, index: jax.Array) -> jax.Array:
    """The column of each row that `index` names."""
    return jnp.take_along_axis(columns, index[..., None], axis=-1)[..., 0]
