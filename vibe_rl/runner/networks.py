"""The networks of the agents, and the distributions over actions that they give."""

from typing import Any, NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from vibe_rl.runner.config import Activation

Params = dict[str, Any]
"""Parameters of a network: a tree of arrays, as flax makes it."""

_ACTIVATIONS = {"tanh": nn.tanh, "relu": nn.relu}


class Categorical(NamedTuple):
    """A distribution over discrete actions.

    Attributes:
        logits: float32 `(..., num_actions)`; unnormalised log-probabilities.
    """

    logits: jax.Array

    def sample(self, key: jax.Array) -> jax.Array:
        """Draw an action for each row of logits: int32 `(...)`."""
        return jax.random.categorical(key, self.logits)

    def log_prob(self, action: jax.Array) -> jax.Array:
        """Log-probability of each action, int32 `(...)`: float32 `(...)`."""
        log_probs = jax.nn.log_softmax(self.logits)
        return jnp.take_along_axis(log_probs, action[..., None], axis=-1)[..., 0]

    def entropy(self) -> jax.Array:
        """Entropy in nats: float32 `(...)`."""
        log_probs = jax.nn.log_softmax(self.logits)
        return -jnp.sum(jnp.exp(log_probs) * log_probs, axis=-1)


class MLP(nn.Module):
    """A multilayer perceptron with orthogonal initial weights.

    Attributes:
        hidden_sizes: Units of each hidden layer.
        output_size: Units of the last layer, which is linear.
        output_scale: Gain of the last layer's initial weights; that of the others is sqrt(2).
        activation: Nonlinearity of the hidden layers.
    """

    hidden_sizes: tuple[int, ...]
    output_size: int
    output_scale: float
    activation: Activation

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map float32 `(..., input_size)` to `(..., output_size)`."""
        for size in self.hidden_sizes:
            x = nn.Dense(size, kernel_init=nn.initializers.orthogonal(2**0.5))(x)
            x = _ACTIVATIONS[self.activation](x)
        last_init = nn.initializers.orthogonal(self.output_scale)
        return nn.Dense(self.output_size, kernel_init=last_init)(x)


class ActorCritic:
    """A policy and a value function that share no weights.

    Args:
        num_actions: Number of discrete actions.
        hidden_sizes: Units of each hidden layer of either network.
        activation: Nonlinearity of the hidden layers.
    """

    def __init__(
        self, num_actions: int, hidden_sizes: tuple[int, ...], activation: Activation
    ) -> None:
        # So small a gain makes the first policy nearly uniform.
        self._actor = MLP(hidden_sizes, num_actions, 0.01, activation)
        self._critic = MLP(hidden_sizes, 1, 1.0, activation)

    def init(self, key: jax.Array, obs: jax.Array) -> Params:
        """Draw the parameters for observations shaped like `obs`, `(..., obs_size)`."""
        actor_key, critic_key = jax.random.split(key)
        return {
            "actor": self._actor.init(actor_key, obs),
            "critic": self._critic.init(critic_key, obs),
        }

    def policy(self, params: Params, obs: jax.Array) -> Categorical:
        """The distribution over actions for observations `(..., obs_size)`."""
        return Categorical(cast("jax.Array", self._actor.apply(params["actor"], obs)))

    def value(self, params: Params, obs: jax.Array) -> jax.Array:
        """The expected discounted return from observations `(..., obs_size)`: float32 `(...)`."""
        return cast("jax.Array", self._critic.apply(params["critic"], obs))[..., 0]
