import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnax.environments.classic_control.cartpole import CartPole

from vibe_rl.runner.environment import (
    ContinuousActions,
    DiscreteActions,
    check_actions,
    make_env,
)


def test_an_unknown_environment_is_named_with_ones_like_it():
    with pytest.raises(ValueError, match=r"unknown environment 'cartpole-v2'.*CartPole-v1"):
        make_env("cartpole-v2", 1)
    with pytest.raises(ValueError, match=r"unknown environment '_'.*CartPole-v1.*Acrobot-v1"):
        make_env("_", 1)


def test_what_an_algorithm_cannot_do_is_said_with_what_can():
    with pytest.raises(ValueError, match=r"those of Pendulum-v1 are continuous: use .*train_sac"):
        check_actions("DQN", make_env("Pendulum-v1", 1), takes="discrete")
    with pytest.raises(ValueError, match=r"those of CartPole-v1 are discrete: use .*train_dqn"):
        check_actions("SAC", make_env("CartPole-v1", 1), takes="continuous")
    check_actions("SAC", make_env("Pendulum-v1", 1), takes="continuous")


def test_continuous_actions_have_the_bounds_of_their_environment_and_are_kept_to_them():
    env = make_env("Pendulum-v1", 2)
    assert env.actions == ContinuousActions((-2.0,), (2.0,))
    obs, state = env.reset(jax.random.key(0))
    results = [
        env.step(jax.random.key(1), state, jnp.full((2, 1), torque))[0] for torque in (2.0, 9.0)
    ]
    np.testing.assert_array_equal(*results)
    assert obs.shape == (2, 3)


class Alone(CartPole):
    """An environment that no registry knows."""


def test_an_environment_may_be_an_object_with_or_without_parameters():
    env = make_env(Alone(), 2)
    assert (env.name, env.actions) == ("CartPole-v1", DiscreteActions(2))
    short = Alone().default_params.replace(max_steps_in_episode=3)
    env = make_env((Alone(), short), 2)
    _, state = env.reset(jax.random.key(0))
    for _ in range(3):
        _, state, outcome = env.step(jax.random.key(1), state, jnp.zeros(2, jnp.int32))
    assert outcome.done.all()
    assert not outcome.terminated.any()


def test_what_is_no_environment_is_named():
    with pytest.raises(TypeError, match=r"<object object.* has no reset\(\)"):
        make_env((object(), None), 1)
    with pytest.raises(TypeError, match=r"an environment has gymnax's interface, but 3 has no"):
        make_env(3, 1)


class Plain(Alone):
    """An environment of gymnax before 1.0: a step gives five values."""

    def step(self, key, state, action, params=None):
        obs, state, reward, terminated, truncated, info = super().step(key, state, action, params)
        return obs, state, reward, terminated | truncated, info


class Forgetful(Alone):
    def step(self, key, state, action, params=None):
        return *super().step(key, state, action, params)[:5], {}


class Shapeless(Alone):
    def reset(self, key, params=None):
        return super().reset(key, params)[0]


@pytest.mark.parametrize(
    ("env", "message"),
    [
        (Plain(), r"step\(\) gives 5 values; .* obs, state, reward, terminated, truncated, info"),
        (Forgetful(), r"no info\['final_observation'\]"),
        (Shapeless(), r"reset\(\) gives no pair \(obs, state\)"),
    ],
)
def test_what_an_environment_does_not_give_is_named(env, message):
    with pytest.raises(TypeError, match=message):
        make_env(env, 1)


def test_observations_of_any_shape_and_kind_are_flat_floats():
    env = make_env("Catch-bsuite", 3)  # a board of 10 by 5 integers
    obs, state = env.reset(jax.random.key(0))
    assert (obs.shape, obs.dtype) == ((3, 50), jnp.float32)
    obs, _, outcome = env.step(jax.random.key(1), state, jnp.zeros(3, jnp.int32))
    assert (obs.shape, obs.dtype) == ((3, 50), jnp.float32)
    assert (outcome.next_obs.shape, outcome.next_obs.dtype) == ((3, 50), jnp.float32)
    assert env.actions.num == 3


def play(env_id, policy, num_steps):
    """The steps of one environment under a policy: each (obs acted on, outcome)."""
    env = make_env(env_id, 1)
    step = jax.jit(env.step)
    obs, state = env.reset(jax.random.key(0))
    steps = []
    for i in range(num_steps):
        new_obs, state, outcome = step(jax.random.key(i), state, policy(obs))
        steps.append((np.asarray(obs[0]), jax.tree.map(lambda x: np.asarray(x[0]), outcome)))
        obs = new_obs
    return steps


def test_an_episode_that_ends_by_itself_is_terminated():
    steps = play("CartPole-v1", lambda obs: jnp.zeros(1, jnp.int32), 30)  # always to the left
    last = next(i for i, (_, outcome) in enumerate(steps) if outcome.done)
    outcome = steps[last][1]
    assert outcome.terminated
    assert abs(outcome.next_obs[2]) > 0.2  # the fallen pole, not the upright one that follows
    assert abs(steps[last + 1][0][2]) < 0.06
    assert outcome.episode_length == last + 1
    assert outcome.episode_return == last + 1  # CartPole pays 1 a step


def test_an_episode_cut_off_by_its_time_limit_is_done_but_not_terminated():
    steps = play("MountainCar-v0", lambda obs: jnp.ones(1, jnp.int32), 201)  # no push: stays below
    outcome = steps[199][1]
    assert outcome.done
    assert not outcome.terminated
    assert outcome.episode_length == 200
    assert outcome.episode_return == -200
    assert not any(outcome.done for _, outcome in steps[:199])
    assert outcome.next_obs[1] != 0.0  # a car that still rolls, not the one at rest that follows
    assert steps[200][0][1] == 0.0
