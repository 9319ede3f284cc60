"""The networks of the agents."""

from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from vibe_rl.runner.config import Activation
from vibe_rl.runner.distributions import Categorical, Gaussian, TanhGaussian
from vibe_rl.runner.environment import ContinuousActions, DiscreteActions

Params = dict[str, Any]
"""Parameters of a network: a tree of arrays, as flax makes it."""

_ACTIVATIONS = {"tanh": nn.tanh, "relu": nn.relu}

_LOG_STD_RANGE = (-20.0, 2.0)
"""Of the squashed policy, before it is squashed; keeps its density finite."""


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
    """A policy and a value function that share no weights: the network of PPO.

    Args:
        actions: What actions the policy gives. Discrete ones come from a `Categorical`, continuous
            ones from a `Gaussian` whose spread is learned but doesn't depend on the observation.
        hidden_sizes: Units of each hidden layer of either network.
        activation: Nonlinearity of the hidden layers.
    """

    def __init__(
        self,
        actions: DiscreteActions | ContinuousActions,
        hidden_sizes: tuple[int, ...],
        activation: Activation,
    ) -> None:
        self._actions = actions
        size = actions.num if isinstance(actions, DiscreteActions) else actions.size
        # So small a gain makes the first policy nearly the same for all observations.
        self._actor = MLP(hidden_sizes, size, 0.01, activation)
        self._critic = MLP(hidden_sizes, 1, 1.0, activation)

    def init(self, key: jax.Array, obs: jax.Array) -> Params:
        """Draw the parameters for observations shaped like `obs`, `(..., obs_size)`."""
        actor_key, critic_key = jax.random.split(key)
        params: Params = {
            "actor": self._actor.init(actor_key, obs),
            "critic": self._critic.init(critic_key, obs),
        }
        if isinstance(self._actions, ContinuousActions):
            params["log_std"] = jnp.zeros(self._actions.size)
        return params

    def policy(self, params: Params, obs: jax.Array) -> Categorical | Gaussian:
        """The distribution over actions for observations `(..., obs_size)`."""
        output = cast("jax.Array", self._actor.apply(params["actor"], obs))
        if isinstance(self._actions, DiscreteActions):
            return Categorical(output)
        return Gaussian(output, params["log_std"])

    def value(self, params: Params, obs: jax.Array) -> jax.Array:
        """The expected discounted return from observations `(..., obs_size)`: float32 `(...)`."""
        return cast("jax.Array", self._critic.apply(params["critic"], obs))[..., 0]


class SquashedActor:
    """A policy over actions whose components lie within (-1, 1): the actor of SAC.

    Args:
        action_size: Components of an action.
        hidden_sizes: Units of each hidden layer.
        activation: Nonlinearity of the hidden layers.
    """

    def __init__(
        self, action_size: int, hidden_sizes: tuple[int, ...], activation: Activation
    ) -> None:
        self._network = MLP(hidden_sizes, 2 * action_size, 0.01, activation)

    def init(self, key: jax.Array, obs: jax.Array) -> Params:
        """Draw the parameters for observations shaped like `obs`, `(..., obs_size)`."""
        return cast("Params", self._network.init(key, obs))

    def policy(self, params: Params, obs: jax.Array) -> TanhGaussian:
        """The distribution over actions for observations `(..., obs_size)`."""
        output = cast("jax.Array", self._network.apply(params, obs))
        mean, log_std = jnp.split(output, 2, axis=-1)
        return TanhGaussian(mean, jnp.clip(log_std, *_LOG_STD_RANGE))


class TwinCritic:
    """Two action values that share no weights: the critic of SAC.

    Args:
        hidden_sizes: Units of each hidden layer of either.
        activation: Nonlinearity of the hidden layers.
    """

    def __init__(self, hidden_sizes: tuple[int, ...], activation: Activation) -> None:
        self._network = MLP(hidden_sizes, 1, 1.0, activation)

    def init(self, key: jax.Array, obs: jax.Array, action: jax.Array) -> Params:
        """Draw the parameters for rows shaped like `obs` and `action`, `(..., size)`."""
        x = jnp.concatenate([obs, action], axis=-1)
        keys = jax.random.split(key)
        return {name: self._network.init(key, x) for name, key in zip("12", keys, strict=True)}

    def values(self, params: Params, obs: jax.Array, action: jax.Array) -> jax.Array:
        """The values of actions `(..., action_size)`, as each sees it: float32 `(..., 2)`."""
        x = jnp.concatenate([obs, action], axis=-1)
        values = [cast("jax.Array", self._network.apply(params[name], x)) for name in "12"]
        return jnp.concatenate(values, axis=-1)
