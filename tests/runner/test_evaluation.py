import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnax.environments.classic_control.cartpole import CartPole

from vibe_rl.runner import evaluation
from vibe_rl.runner.environment import make_env


def lean(obs):
    """Push to where the pole leans: keeps it up for a while."""
    return (obs[..., 2] > 0).astype(jnp.int32)


def test_an_evaluation_is_the_mean_of_whole_episodes_of_their_own():
    env = make_env("CartPole-v1", 1)
    key = jax.random.key(5)
    result = jax.jit(lambda key: evaluation.evaluate(lean, env, 4, key))(key)

    # Each copy begins with the key that VectorEnv.reset gives it; CartPole's steps take none.
    keys = jax.random.split(jax.random.split(key)[1], 4)
    returns = []
    for each in keys:
        obs, state = env.env.reset(each, env.params)
        total, done = 0.0, False
        while not done:
            obs, state, reward, ended, cut, _ = env.env.step(key, state, lean(obs), env.params)
            total, done = total + float(reward), bool(ended | cut)
        returns.append(total)
    assert len(set(returns)) > 1
    np.testing.assert_allclose(result.eval_return_mean, np.mean(returns), rtol=1e-6)
    np.testing.assert_allclose(result.eval_return_std, np.std(returns), rtol=1e-5)
    np.testing.assert_allclose(result.eval_length_mean, np.mean(returns), rtol=1e-6)


def test_a_time_limit_ends_an_episode():
    env = CartPole()
    cut = make_env((env, env.default_params.replace(max_steps_in_episode=5)), 3)
    result = evaluation.evaluate(lean, cut, 3, jax.random.key(0))
    assert result.eval_length_mean == 5.0
    assert result.eval_return_std == 0.0


def test_an_episode_without_end_counts_as_far_as_it_came(monkeypatch):
    monkeypatch.setattr(evaluation, "MAX_STEPS", 7)
    env = make_env("CartPole-v1", 1)
    result = evaluation.evaluate(lean, env, 2, jax.random.key(0))
    assert result.eval_length_mean == pytest.approx(7.0)
