import jax
import jax.numpy as jnp
import numpy as np

from vibe_rl.runner.environment import ContinuousActions, DiscreteActions
from vibe_rl.runner.networks import ActorCritic, SquashedActor, TwinCritic


def test_the_first_policy_is_nearly_uniform():
    network = ActorCritic(DiscreteActions(3), hidden_sizes=(16, 16), activation="tanh")
    obs = jax.random.normal(jax.random.key(0), (5, 4))
    params = network.init(jax.random.key(1), obs)
    probs = jax.nn.softmax(network.policy(params, obs).logits)
    np.testing.assert_allclose(probs, np.full((5, 3), 1 / 3), atol=0.02)
    assert network.value(params, obs).shape == (5,)


def test_actor_and_critic_share_no_weights():
    network = ActorCritic(DiscreteActions(3), hidden_sizes=(8,), activation="relu")
    obs = jnp.ones((1, 4))
    params = network.init(jax.random.key(0), obs)
    other = network.init(jax.random.key(1), obs)
    mixed = {"actor": other["actor"], "critic": params["critic"]}
    assert network.value(mixed, obs) == network.value(params, obs)
    assert (network.policy(mixed, obs).logits != network.policy(params, obs).logits).any()


def test_a_policy_over_vectors_learns_a_spread_that_depends_on_no_observation():
    network = ActorCritic(ContinuousActions((-2.0, 0.0), (2.0, 1.0)), (8,), "tanh")
    obs = jax.random.normal(jax.random.key(0), (5, 4))
    params = network.init(jax.random.key(1), obs)
    policy = network.policy(params, obs)
    assert policy.mean.shape == (5, 2)
    np.testing.assert_allclose(policy.mean, 0.0, atol=0.05)
    np.testing.assert_array_equal(policy.log_std, [0.0, 0.0])
    grads = jax.grad(lambda params: network.policy(params, obs).entropy().sum())(params)
    np.testing.assert_allclose(grads["log_std"], [5.0, 5.0])


def test_a_squashed_policy_stays_within_bounds_however_sure_it_is():
    actor = SquashedActor(3, (8,), "relu")
    obs = jax.random.normal(jax.random.key(0), (5, 4))
    params = actor.init(jax.random.key(1), obs)
    policy = actor.policy(params, 1e4 * obs)
    action, log_prob = policy.sample(jax.random.key(2))
    assert action.shape == (5, 3)
    assert (abs(action) <= 1.0).all()
    assert np.isfinite(log_prob).all()


def test_twin_critics_share_no_weights():
    critic = TwinCritic((8,), "relu")
    obs, action = jnp.ones((5, 4)), jnp.ones((5, 2))
    params = critic.init(jax.random.key(0), obs, action)
    values = critic.values(params, obs, action)
    assert values.shape == (5, 2)
    assert (values[:, 0] != values[:, 1]).all()
    other = critic.init(jax.random.key(1), obs, action)
    mixed = critic.values({"1": params["1"], "2": other["2"]}, obs, action)
    np.testing.assert_array_equal(mixed[:, 0], values[:, 0])
    assert (mixed[:, 1] != values[:, 1]).all()
