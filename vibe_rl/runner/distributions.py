"""The distributions over actions that policies give."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.stats import norm


class Categorical(NamedTuple):
    """A distribution over discrete actions.

    Attributes:
        logits: float32 `(..., num_actions)`; unnormalised log-probabilities.
    """

    logits: jax.Array

    def sample(self, key: jax.Array) -> jax.Array:
        """Draw an action for each row of logits: int32 `(...)`."""
        return jax.random.categorical(key, self.logits)

    def mode(self) -> jax.Array:
        """The likeliest action of each row: int32 `(...)`."""
        return jnp.argmax(self.logits, axis=-1)

    def log_prob(self, action: jax.Array) -> jax.Array:
        """Log-probability of each action, int32 `(...)`: float32 `(...)`."""
        log_probs = jax.nn.log_softmax(self.logits)
        return jnp.take_along_axis(log_probs, action[..., None], axis=-1)[..., 0]

    def entropy(self) -> jax.Array:
        """Entropy in nats: float32 `(...)`."""
        log_probs = jax.nn.log_softmax(self.logits)
        return -jnp.sum(jnp.exp(log_probs) * log_probs, axis=-1)


class Gaussian(NamedTuple):
    """A normal distribution over vectors, whose components are independent.

    Attributes:
        mean: float32 `(..., size)`.
        log_std: Logarithm of the standard deviations; float32, of a shape that broadcasts to
            that of `mean`.
    """

    mean: jax.Array
    log_std: jax.Array

    def sample(self, key: jax.Array) -> jax.Array:
        """Draw a vector for each row: float32 `(..., size)`."""
        noise = jax.random.normal(key, self.mean.shape)
        return self.mean + jnp.exp(self.log_std) * noise

    def mode(self) -> jax.Array:
        """The likeliest vector of each row: float32 `(..., size)`."""
        return self.mean

    def log_prob(self, value: jax.Array) -> jax.Array:
        """Log-density at each vector, `(..., size)`: float32 `(...)`."""
        return jnp.sum(norm.logpdf(value, self.mean, jnp.exp(self.log_std)), axis=-1)

    def entropy(self) -> jax.Array:
        """Entropy in nats: float32 `(...)`."""
        log_std = jnp.broadcast_to(self.log_std, self.mean.shape)
        return jnp.sum(log_std + 0.5 * math.log(2 * math.pi * math.e), axis=-1)


class TanhGaussian(NamedTuple):
    """What the hyperbolic tangent makes of a normal distribution: all lies within (-1, 1).

    Attributes:
        mean: float32 `(..., size)`; of the normal distribution.
        log_std: float32 `(..., size)`; logarithm of its standard deviations.
    """

    mean: jax.Array
    log_std: jax.Array

    def sample(self, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Draw a vector for each row: float32 `(..., size)`, and its log-density, `(...)`."""
        latent = Gaussian(*self).sample(key)
        return jnp.tanh(latent), self.log_prob_of_tanh(latent)

    def mode(self) -> jax.Array:
        """What becomes of the normal distribution's mean: float32 `(..., size)`."""
        return jnp.tanh(self.mean)

    def log_prob_of_tanh(self, latent: jax.Array) -> jax.Array:
        """Log-density at the hyperbolic tangent of each vector, `(..., size)`: float32 `(...)`.

        By the change of variables, each component's density is divided by the slope of tanh:

            log p(tanh(u)) = log N(u) - sum(log(1 - tanh(u)^2))

        It takes `u`, for tanh(u) rounds to 1 already where u is 9.
        """
        # 1 - tanh(u)^2 = 4 / (e^u + e^-u)^2, here without the overflow.
        log_slope = 2.0 * (math.log(2.0) - latent - jax.nn.softplus(-2.0 * latent))
        return Gaussian(*self).log_prob(latent) - jnp.sum(log_slope, axis=-1)
