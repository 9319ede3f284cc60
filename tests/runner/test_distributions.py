import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from vibe_rl.runner.distributions import Categorical, Gaussian, TanhGaussian

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


def test_the_mode_of_a_categorical_is_its_likeliest_action():
    np.testing.assert_array_equal(Categorical(jnp.log(PROBS)).mode(), [0, 2])


MEAN = np.array([[0.0, 1.0, -2.0], [0.5, 0.0, 3.0]])
LOG_STD = np.array([0.0, -1.0, 0.5])


def test_a_gaussian_is_the_one_of_the_textbook():
    policy = Gaussian(jnp.asarray(MEAN), jnp.asarray(LOG_STD))
    exact = [stats.multivariate_normal(mean, np.diag(np.exp(2 * LOG_STD))) for mean in MEAN]
    value = np.array([[0.3, 0.9, -1.0], [-2.0, 0.1, 3.3]])
    expected = [each.logpdf(x) for each, x in zip(exact, value, strict=True)]
    np.testing.assert_allclose(policy.log_prob(jnp.asarray(value)), expected, rtol=1e-5)
    np.testing.assert_allclose(policy.entropy(), [each.entropy() for each in exact], rtol=1e-5)

    samples = jax.vmap(policy.sample)(jax.random.split(jax.random.key(0), 20_000))
    np.testing.assert_allclose(samples.mean(axis=0), MEAN, atol=0.05)
    np.testing.assert_allclose(samples.std(axis=0), [np.exp(LOG_STD)] * 2, rtol=0.03)


@pytest.mark.parametrize(("mean", "log_std"), [(0.0, 0.0), (0.4, -1.5), (-1.2, 0.7)])
def test_the_density_of_a_squashed_gaussian_integrates_to_one(mean, log_std):
    latent = np.linspace(-12.0, 12.0, 200_001)
    policy = TanhGaussian(jnp.full((1,), mean), jnp.full((1,), log_std))
    density = np.exp(policy.log_prob_of_tanh(jnp.asarray(latent)[:, None]).astype(float))
    assert np.trapezoid(density, np.tanh(latent)) == pytest.approx(1.0, abs=1e-3)


def test_the_density_of_a_squashed_gaussian_is_where_its_samples_are():
    policy = TanhGaussian(jnp.full((40_000, 1), 0.4), jnp.full((40_000, 1), -0.5))
    action, log_prob = policy.sample(jax.random.key(0))
    edges = np.linspace(-0.9, 0.9, 10)
    latent = np.arctanh(edges)
    share = np.diff(stats.norm.cdf(latent, 0.4, np.exp(-0.5)))
    np.testing.assert_allclose(np.histogram(action, edges)[0] / 40_000, share, atol=0.01)
    # The sampled density's own entropy, and the one from the same probabilities.
    fine = np.linspace(-0.9999, 0.9999, 100_001)
    exact = stats.norm.pdf(np.arctanh(fine), 0.4, np.exp(-0.5)) / (1 - fine**2)
    entropy = -np.trapezoid(exact * np.log(exact), fine)
    assert -np.mean(log_prob) == pytest.approx(entropy, abs=0.02)


def test_the_components_of_a_squashed_gaussian_are_independent():
    both = TanhGaussian(jnp.array([0.3, -1.0]), jnp.array([-0.2, 0.4]))
    latent = jnp.array([0.5, 1.5])
    parts = [
        TanhGaussian(both.mean[i : i + 1], both.log_std[i : i + 1]).log_prob_of_tanh(
            latent[i : i + 1]
        )
        for i in range(2)
    ]
    np.testing.assert_allclose(both.log_prob_of_tanh(latent), sum(parts), rtol=1e-5)
    np.testing.assert_allclose(both.mode(), np.tanh([0.3, -1.0]), rtol=1e-6)


def test_a_density_near_the_bounds_is_finite():
    policy = TanhGaussian(jnp.array([30.0]), jnp.array([0.0]))
    assert np.isfinite(policy.log_prob_of_tanh(jnp.array([30.0])))  # where tanh rounds to 1
    assert np.isfinite(policy.log_prob_of_tanh(jnp.array([-30.0])))
