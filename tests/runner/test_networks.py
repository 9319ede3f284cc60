import jax
import jax.numpy as jnp
import numpy as np

from vibe_rl.runner.networks import ActorCritic, Categorical

PROBS = np.array([[0.5, 0.25, 0.25], [0.1, 0.2, 0.7]])


def test_a_categorical_is_what_its_probabilities_say():
    policy = Categorical(jnp.log(PROBS) + 3.0)  # logits are free up to a constant
    log_prob = policy.log_prob(jnp.array([1, 2]))
    np.testing.assert_allclose(log_prob, np.log([0.25, 0.7]), rtol=1e-5)
    np.testing.assert_allclose(policy.entropy(), -(PROBS * np.log(PROBS)).sum(1), rtol=1e-5)

    samples = jax.vmap(policy.sample)(jax.random.split(jax.random.key(0), 10_000))
    for row in range(2):
        frequency = np.bincount(np.asarray(samples)[:, row], minlength=3) / 10_000
        np.testing.assert_allclose(frequency, PROBS[row], atol=0.02)


def test_an_impossible_action_leaves_the_others_their_numbers():
    policy = Categorical(jnp.array([0.0, -1e30, 0.0]))
    np.testing.assert_allclose(policy.entropy(), np.log(2), rtol=1e-5)
    np.testing.assert_allclose(policy.log_prob(jnp.array(0)), np.log(0.5), rtol=1e-5)


def test_the_first_policy_is_nearly_uniform():
    network = ActorCritic(num_actions=3, hidden_sizes=(16, 16), activation="tanh")
    obs = jax.random.normal(jax.random.key(0), (5, 4))
    params = network.init(jax.random.key(1), obs)
    probs = jax.nn.softmax(network.policy(params, obs).logits)
    np.testing.assert_allclose(probs, np.full((5, 3), 1 / 3), atol=0.02)
    assert network.value(params, obs).shape == (5,)


def test_actor_and_critic_share_no_weights():
    network = ActorCritic(num_actions=3, hidden_sizes=(8,), activation="relu")
    obs = jnp.ones((1, 4))
    params = network.init(jax.random.key(0), obs)
    other = network.init(jax.random.key(1), obs)
    mixed = {"actor": other["actor"], "critic": params["critic"]}
    assert network.value(mixed, obs) == network.value(params, obs)
    assert (network.policy(mixed, obs).logits != network.policy(params, obs).logits).any()
