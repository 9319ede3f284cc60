"""An environment whose value is known: what cuts its episodes is a time limit alone."""

import jax.numpy as jnp
from gymnax.environments import spaces
from gymnax.environments.environment import Environment, EnvParams, EnvState


class Endless(Environment):
    """Pays 1 for each step, for ever; its time limit cuts it into episodes of 5 steps."""

    def __init__(self, actions=None):
        super().__init__()
        self._actions = actions or spaces.Discrete(2)

    @property
    def default_params(self):
        return EnvParams(max_steps_in_episode=5)

    def step_env(self, key, state, action, params):
        return jnp.ones(1), EnvState(time=state.time + 1), jnp.array(1.0), jnp.array(False), {}

    def reset_env(self, key, params):
        return jnp.ones(1), EnvState(time=jnp.int32(0))

    def action_space(self, params=None):
        return self._actions
