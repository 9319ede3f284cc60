"""The numerics of PPO against calculations by hand."""

import math

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from endless import Endless

from vibe_rl.runner import PPOConfig, ppo, train_ppo
from vibe_rl.runner.distributions import Categorical
from vibe_rl.runner.environment import Outcome, make_env


def advantages_by_loop(arrays, gamma, gae_lambda):
    reward, value, next_value, terminated, done = arrays
    advantages = np.zeros(len(reward))
    following = 0.0
    for t in reversed(range(len(reward))):
        target = reward[t] if terminated[t] else reward[t] + gamma * next_value[t]
        following = target - value[t] + (0.0 if done[t] else gamma * gae_lambda * following)
        advantages[t] = following
    return advantages


@pytest.mark.parametrize(("gamma", "gae_lambda"), [(0.99, 0.95), (0.9, 0.0), (0.9, 1.0)])
def test_advantages_are_those_of_a_plain_loop(gamma, gae_lambda):
    rng = np.random.default_rng(0)
    reward, value, next_value = rng.normal(size=(3, 40, 6))
    terminated = rng.random((40, 6)) < 0.15
    done = terminated | (rng.random((40, 6)) < 0.15)  # some are cut off by a time limit
    arrays = (reward, value, next_value, terminated, done)
    advantages = ppo.estimate_advantages(
        *map(jnp.asarray, arrays), gamma=gamma, gae_lambda=gae_lambda
    )
    for env in range(6):
        expected = advantages_by_loop([x[:, env] for x in arrays], gamma, gae_lambda)
        np.testing.assert_allclose(advantages[:, env], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scale_rewards", [False, True])
def test_a_batch_values_what_an_action_led_to_not_what_was_reset_after_it(scale_rewards):
    config = PPOConfig(
        num_envs=2, num_steps=3, num_minibatches=1, hidden_sizes=(8,), scale_rewards=scale_rewards
    )
    env = make_env("CartPole-v1", 2)
    network = ppo.make_network(config, env)
    obs, next_obs = jax.random.normal(jax.random.key(0), (2, 3, 2, 4))
    state = ppo.init_train_state(config, env, jax.random.key(1))
    state = state._replace(returns=state.returns._replace(variance=jnp.float32(4.0)))
    done = jnp.array([[False, True], [True, False], [False, False]])
    terminated = jnp.array([[False, True], [False, False], [False, False]])
    reward = jnp.arange(6.0).reshape(3, 2)
    action = jnp.arange(6).reshape(3, 2)
    outcome = Outcome(reward, next_obs, terminated, done, reward, action)

    batch = ppo.make_batch(
        config, env, state, ppo.Transition(obs, action, jnp.zeros((3, 2)), outcome)
    )

    value, next_value = network.value(state.params, obs), network.value(state.params, next_obs)
    if scale_rewards:
        reward /= 2.0  # the standard deviation of the returns
    arrays = [np.asarray(x) for x in (reward, value, next_value, terminated, done)]
    expected = np.stack(
        [advantages_by_loop([x[:, env] for x in arrays], 0.99, 0.95) for env in range(2)], axis=1
    )
    np.testing.assert_allclose(batch.advantage, expected.ravel(), rtol=1e-4)
    np.testing.assert_allclose(batch.target, (expected + arrays[1]).ravel(), rtol=1e-4)
    np.testing.assert_array_equal(batch.obs, obs.reshape(6, 4))  # a row keeps its own columns
    np.testing.assert_array_equal(batch.action, np.arange(6))


class FixedNetwork:
    """Gives the logits and the values that stand in its parameters."""

    def policy(self, params, obs):
        return Categorical(params["logits"])

    def value(self, params, obs):
        return params["value"]


@pytest.mark.parametrize("clip_value_loss", [False, True])
@pytest.mark.parametrize("normalize", [False, True])
def test_the_loss_is_the_one_computed_by_hand(clip_value_loss, normalize):
    probs = np.array([[0.5, 0.5], [0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])
    old_prob = np.array([0.5, 0.5, 0.4, 0.9])  # ratios 1, 1.8, 2, 0.44: two sides of the clipping
    action = np.array([0, 0, 1, 1])
    advantage = np.array([1.0, 2.0, -1.0, -3.0])
    value, old_value = np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.1, 1.0, 3.0, 5.0])
    target = np.array([0.0, 2.5, 3.0, 3.0])
    config = PPOConfig(
        clip_epsilon=0.3,
        value_coef=0.25,
        entropy_coef=0.02,
        clip_value_loss=clip_value_loss,
        normalize_advantage=normalize,
    )
    batch = ppo.Batch(
        obs=jnp.zeros((4, 1)),
        action=jnp.asarray(action),
        log_prob=jnp.log(old_prob),
        value=jnp.asarray(old_value),
        advantage=jnp.asarray(advantage),
        target=jnp.asarray(target),
    )
    params = {"logits": jnp.log(probs), "value": jnp.asarray(value)}
    loss, metrics = ppo.loss(params, FixedNetwork(), batch, config)

    if normalize:
        advantage = (advantage - advantage.mean()) / advantage.std()
    actor = critic = entropy = kl = clipped = 0.0
    for i in range(4):
        ratio = probs[i, action[i]] / old_prob[i]
        actor -= min(ratio * advantage[i], min(max(ratio, 0.7), 1.3) * advantage[i]) / 4
        error = (value[i] - target[i]) ** 2
        if clip_value_loss:
            near = min(max(value[i], old_value[i] - 0.3), old_value[i] + 0.3)
            error = max(error, (near - target[i]) ** 2)
        critic += error / 2 / 4
        entropy -= sum(p * math.log(p) for p in probs[i]) / 4
        kl += (ratio - 1 - math.log(ratio)) / 4
        clipped += (abs(ratio - 1) > 0.3) / 4
    assert metrics["actor_loss"] == pytest.approx(actor, rel=1e-4)
    assert metrics["critic_loss"] == pytest.approx(critic, rel=1e-4)
    assert metrics["entropy"] == pytest.approx(entropy, rel=1e-4)
    assert metrics["approx_kl"] == pytest.approx(kl, rel=1e-4)
    assert metrics["clip_fraction"] == pytest.approx(clipped)
    assert loss == pytest.approx(actor + 0.25 * critic - 0.02 * entropy, rel=1e-4)


def test_a_policy_gains_nothing_from_leaving_the_clipping_range():
    config = PPOConfig(normalize_advantage=False, value_coef=0.0, entropy_coef=0.0)

    def gradient(probability, advantage):
        batch = ppo.Batch(
            obs=jnp.zeros((1, 1)),
            action=jnp.array([0]),
            log_prob=jnp.log(jnp.array([0.5])),
            value=jnp.zeros(1),
            advantage=jnp.array([advantage]),
            target=jnp.zeros(1),
        )
        logits = jnp.log(jnp.array([[probability, 1 - probability]]))
        params = {"logits": logits, "value": jnp.zeros(1)}
        grads, _ = jax.grad(ppo.loss, has_aux=True)(params, FixedNetwork(), batch, config)
        return float(grads["logits"][0, 0])

    assert gradient(0.5, advantage=1.0) < 0  # likelier, for it was good
    assert gradient(0.5, advantage=-1.0) > 0
    assert gradient(0.7, advantage=1.0) == 0  # likelier by 1.4 already
    assert gradient(0.7, advantage=-1.0) > 0  # but the way back is open
    assert gradient(0.3, advantage=-1.0) == 0


def test_each_pass_uses_each_step_once_in_an_order_of_its_own(monkeypatch):
    config = PPOConfig(num_envs=2, num_steps=6, num_minibatches=3, update_epochs=2, hidden_sizes=())
    env = make_env("CartPole-v1", 2)
    state = ppo.init_train_state(config, env, jax.random.key(0))
    row = jnp.arange(12)
    zeros = jnp.zeros(12)
    batch = ppo.Batch(jnp.zeros((12, 4)), row % 2, zeros, zeros, row.astype(float), zeros)
    minibatches = []
    loss = ppo.loss

    def recording_loss(params, network, batch, config):
        jax.debug.callback(
            lambda rows: minibatches.append(rows.astype(int).tolist()),
            batch.advantage,
            ordered=True,
        )
        return loss(params, network, batch, config)

    monkeypatch.setattr(ppo, "loss", recording_loss)
    jax.jit(ppo.learn, static_argnums=(0, 1))(config, env, state, batch)
    jax.effects_barrier()
    assert [len(rows) for rows in minibatches] == [4] * 6
    passes = [[*a, *b, *c] for a, b, c in (minibatches[:3], minibatches[3:])]
    assert sorted(passes[0]) == sorted(passes[1]) == list(range(12))
    assert passes[0] != passes[1]


def step_sizes(config, grads):
    optimizer = ppo.make_optimizer(config)
    state = optimizer.init(jnp.zeros(1))
    sizes = []
    for grad in grads:
        update, state = optimizer.update(jnp.array([grad]), state)
        sizes.append(-float(update[0]))
    return sizes


SIX_GRADIENT_STEPS = {
    "total_timesteps": 12,
    "log_interval": 4,
    "num_envs": 1,
    "num_steps": 4,
    "update_epochs": 2,
    "num_minibatches": 1,
    "learning_rate": 0.6,
}


def test_the_learning_rate_falls_to_zero_over_the_run():
    config = PPOConfig(**SIX_GRADIENT_STEPS)
    sizes = step_sizes(config, [0.1] * 7)  # Adam's step on equal gradients is the learning rate
    np.testing.assert_allclose(sizes, [0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0], rtol=1e-3, atol=1e-4)


def test_the_learning_rate_stays_if_told_so():
    config = PPOConfig(**SIX_GRADIENT_STEPS, anneal_learning_rate=False)
    np.testing.assert_allclose(step_sizes(config, [0.1] * 7), [0.6] * 7, rtol=1e-3)


def test_a_huge_gradient_is_clipped():
    config = PPOConfig(**SIX_GRADIENT_STEPS, anneal_learning_rate=False, max_grad_norm=0.1)
    # Unclipped, the first gradient would outweigh the second in Adam's memory.
    np.testing.assert_allclose(step_sizes(config, [1e4, 0.1]), [0.6, 0.6], rtol=1e-3)


def test_the_value_of_a_task_is_not_cut_off_by_its_time_limit():
    gymnax.register("Endless-test", Endless)
    config = PPOConfig(
        env_id="Endless-test",
        total_timesteps=20_000,
        num_envs=4,
        num_steps=10,
        gamma=0.9,
        scale_rewards=False,
        learning_rate=1e-2,
        hidden_sizes=(8,),
    )
    state, metrics = train_ppo(config)
    network = ppo.make_network(config, make_env("Endless-test", 4))
    value = network.value(state.params, jnp.ones(1))
    assert value == pytest.approx(10.0, abs=0.5)  # 1 / (1 - gamma); 3.3 if the limit were an end
    assert metrics["episode_return"][-1] == 5.0
    assert metrics["episode_length"][-1] == 5.0
