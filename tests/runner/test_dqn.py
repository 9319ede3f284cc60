"""The numerics of DQN against calculations by hand."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from endless import Endless

from vibe_rl.metrics import read_metrics
from vibe_rl.run_dir import RunDir
from vibe_rl.runner import DQNConfig, dqn, off_policy, train_dqn
from vibe_rl.runner.environment import make_env
from vibe_rl.runner.replay import Transition, make_replay

SMALL = DQNConfig(
    total_timesteps=64,
    log_interval=16,
    eval_interval=0,
    checkpoint_interval=0,
    num_envs=4,
    buffer_size=100,
    batch_size=8,
    learning_starts=24,
    target_interval=3,
    epsilon_steps=48,
    epsilon_end=0.1,
    hidden_sizes=(8,),
)


@partial(jax.jit, static_argnums=(0, 1))
def collect(config, env, state):
    return off_policy.collect(config, env, state, partial(dqn.explore, config, env))


@partial(jax.jit, static_argnums=(0, 1))
def learn(config, env, state, key):
    step = partial(dqn.gradient_step, config, env)
    learner, _ = off_policy.learn(config, state.learner, state.replay, key, step)
    return state._replace(learner=learner)


class FixedNetwork:
    """Gives the values that stand in its parameters, by the row that an observation names."""

    def apply(self, params, obs):
        return params[obs[:, 0].astype(int)]


def test_the_loss_is_that_of_the_double_dqn_target_by_hand():
    online = np.array([[1.0, 2.0], [5.0, 4.0], [0.0, 3.0], [7.0, 6.0]])
    target = np.array([[0.5, 0.1], [10.0, 20.0], [30.0, 40.0], [50.0, 60.0]])
    obs, action, next_obs = [0, 0, 2], [0, 1, 1], [1, 2, 3]
    reward, terminated = [1.0, -1.0, 2.0], [False, False, True]
    batch = Transition(
        jnp.array(obs)[:, None],
        jnp.array(action),
        jnp.array(reward),
        jnp.array(next_obs)[:, None],
        jnp.array(terminated),
    )
    config = dataclasses.replace(SMALL, gamma=0.9)
    loss, metrics = dqn.loss(jnp.array(online), jnp.array(target), FixedNetwork(), batch, config)

    # One network chooses, the other one values: the second action of row 1 would be worth 20.
    expected = [1.0 + 0.9 * 10.0, -1.0 + 0.9 * 40.0, 2.0]
    value = [online[row, a] for row, a in zip(obs, action, strict=True)]
    by_hand = np.mean([0.5 * (v - y) ** 2 for v, y in zip(value, expected, strict=True)])
    assert loss == pytest.approx(by_hand, rel=1e-5)
    assert metrics["loss"] == pytest.approx(by_hand, rel=1e-5)
    assert metrics["q_mean"] == pytest.approx(np.mean(value), rel=1e-5)


def test_the_target_gets_no_gradient():
    params = jnp.array([[1.0, 2.0], [5.0, 4.0]])
    batch = Transition(
        jnp.array([[0]]), jnp.array([1]), jnp.ones(1), jnp.array([[1]]), jnp.array([False])
    )
    grads, _ = jax.grad(dqn.loss, has_aux=True)(params, params, FixedNetwork(), batch, SMALL)
    np.testing.assert_allclose(grads, [[0.0, 2.0 - (1.0 + 0.99 * 5.0)], [0.0, 0.0]], rtol=1e-5)


def test_epsilon_falls_in_a_straight_line_and_then_stays():
    for num_steps, expected in [(0, 1.0), (12, 0.775), (24, 0.55), (48, 0.1), (1000, 0.1)]:
        assert dqn.epsilon(SMALL, jnp.int32(num_steps)) == pytest.approx(expected)


def test_that_share_of_actions_is_random_and_the_others_are_the_best():
    config = dataclasses.replace(
        SMALL, num_envs=500, buffer_size=500, epsilon_start=0.5, epsilon_end=0.0
    )
    env = make_env("CartPole-v1", 500)
    state = dqn.init_train_state(config, env, jax.random.key(0))
    best = dqn.act(config, env, state, state.obs)
    for num_steps, epsilon in [(0, 0.5), (config.epsilon_steps, 0.0)]:
        after = collect(config, env, state._replace(num_steps=jnp.uint32(num_steps)))
        taken = after.replay.experience.action[0]
        assert np.mean(taken != best) == pytest.approx(epsilon / 2, abs=0.06)  # of two actions


def test_the_buffer_holds_what_an_action_led_to_not_what_was_reset_after_it():
    config = dataclasses.replace(SMALL, num_envs=1, num_steps=60, buffer_size=60, epsilon_end=1.0)
    env = make_env("CartPole-v1", 1)
    state = dqn.init_train_state(config, env, jax.random.key(0))
    state = collect(config, env, state)
    obs, _, _, next_obs, terminated = (np.asarray(x[0]) for x in state.replay.experience)
    ends = np.flatnonzero(terminated[:-1])
    assert len(ends)
    assert (abs(next_obs[ends, 2]) > 0.2).all()  # fallen poles
    assert (abs(obs[ends + 1, 2]) < 0.06).all()
    goes_on = np.flatnonzero(~terminated[:-1])
    np.testing.assert_array_equal(next_obs[goes_on], obs[goes_on + 1])


def test_the_buffer_keeps_the_latest_and_gives_each_equally_often():
    replay = make_replay(6, 3)
    row = jnp.arange(12.0).reshape(3, 4)
    blank = Transition(*(jnp.float32(0.0) for _ in Transition._fields))
    state = replay.init(blank)
    for steps in row:
        state = replay.add(state, Transition(*[steps.reshape(2, 2)] * 5))
    keys = jax.random.split(jax.random.key(0), 2_000)
    drawn = jax.vmap(replay.sample, in_axes=(None, 0))(state, keys).experience
    values, counts = np.unique(drawn.reward, return_counts=True)
    np.testing.assert_array_equal(values, np.arange(6.0, 12.0))
    np.testing.assert_allclose(counts, 1_000, rtol=0.15)
    np.testing.assert_array_equal(drawn.obs, drawn.reward)  # the fields of a row stay together


def test_the_target_network_is_a_copy_every_so_many_gradient_steps():
    env = make_env("CartPole-v1", 4)
    state = dqn.init_train_state(SMALL, env, jax.random.key(0))
    state = collect(SMALL, env, state)
    is_copy = []
    for i in range(7):
        old = state.learner.target_params
        state = learn(SMALL, env, state, jax.random.key(i))
        learner = state.learner
        equal = jax.tree.map(np.array_equal, learner.target_params, learner.params)
        is_copy.append(jax.tree.all(equal))
        kept = jax.tree.map(np.array_equal, learner.target_params, old)
        assert is_copy[-1] or jax.tree.all(kept)
    assert is_copy == [False, False, True, False, False, True, False]


def test_it_learns_nothing_before_its_time_and_then_averages_gradient_steps_alone():
    env = make_env("CartPole-v1", 4)
    state = dqn.init_train_state(SMALL, env, jax.random.key(0))
    chunk = jax.jit(dqn.train_chunk, static_argnums=(0, 1))
    after, metrics = chunk(SMALL, env, state, jnp.int32(5))  # 20 of 24 steps
    assert after.learner.num_steps == 0
    jax.tree.map(np.testing.assert_array_equal, after.learner.params, state.learner.params)
    assert np.isnan(metrics.loss)
    assert metrics.epsilon == pytest.approx(1 - 0.9 * 20 / 48)

    one, first = chunk(SMALL, env, after, jnp.int32(1))
    assert one.learner.num_steps == 1
    _, both = chunk(SMALL, env, state, jnp.int32(6))
    assert both.loss == pytest.approx(first.loss)

    many = jnp.array(2**31 - 4, state.num_steps.dtype)  # it goes on past what an int32 holds
    late, metrics = chunk(SMALL, env, state._replace(num_steps=many), jnp.int32(1))
    assert (int(late.num_steps), late.learner.num_steps) == (2**31, 1)
    assert metrics.epsilon == pytest.approx(0.1)


def test_the_learning_rate_falls_to_zero_if_told_so():
    for anneal, last in [(True, 0.0), (False, 1e-3)]:
        config = dataclasses.replace(SMALL, anneal_learning_rate=anneal)
        optimizer = dqn.make_optimizer(config)
        state, params = optimizer.init(jnp.zeros(1)), jnp.zeros(1)
        for _ in range(config.num_gradient_steps + 1):
            update, state = optimizer.update(jnp.array([0.1]), state)
            params = optax.apply_updates(params, update)
        assert -update[0] == pytest.approx(last, abs=1e-5)
        assert config.can_be_extended is not anneal


@pytest.mark.parametrize(
    ("learning_starts", "expected"), [(0, 32), (4, 32), (5, 30), (24, 22), (64, 2), (65, 0)]
)
def test_gradient_steps_are_counted_from_where_learning_starts(learning_starts, expected):
    config = dataclasses.replace(SMALL, learning_starts=learning_starts, gradient_steps=2)
    assert config.num_gradient_steps == expected  # of 16 updates, the sixth is at step 24


def test_the_value_of_a_task_is_not_cut_off_by_its_time_limit():
    config = dataclasses.replace(
        SMALL, total_timesteps=8_000, gamma=0.8, learning_rate=1e-2, batch_size=16
    )
    state, metrics = train_dqn(config, env=Endless())
    assert metrics["q_mean"][-1] == pytest.approx(5.0, abs=0.3)  # 1 / (1 - gamma); 2.4 if an end
    assert metrics["episode_return"][-1] == 5.0
    assert state.num_steps == 8_000


def test_several_seeds_learn_apart_and_log_their_fields_apart(tmp_path):
    run = RunDir("seeds", tmp_path)
    state, metrics = train_dqn(dataclasses.replace(SMALL, seed=5, num_seeds=2), run_dir=run)
    records = read_metrics(run)
    said = [(record["step"], record["seed"]) for record in records]
    assert sorted(said) == [(step, seed) for step in (16, 32, 48, 64) for seed in (5, 6)]
    fields = {"episode_return", "episode_length", "loss", "q_mean", "epsilon"}
    assert set(records[-1]) == {"step", "seed", "steps_per_second", "wall_time"} | fields
    assert fields | {"step"} <= set(metrics)
    np.testing.assert_array_equal(metrics["step"], [[16, 32, 48, 64]] * 2)
    assert metrics["loss"].shape == (2, 4)
    assert np.isfinite(metrics["loss"][:, 1:]).all()
    assert state.learner.num_steps.tolist() == [11, 11]
    assert (metrics["loss"][0, 1:] != metrics["loss"][1, 1:]).all()
    for record in records:
        at = record["seed"] - 5, record["step"] // 16 - 1
        for name in fields:
            expected = pytest.approx(float(metrics[name][at]), rel=1e-6, nan_ok=True)
            assert record[name] == expected, name


def test_what_it_cannot_learn_is_refused():
    with pytest.raises(ValueError, match="those of Pendulum-v1 are continuous"):
        train_dqn(DQNConfig(env_id="Pendulum-v1"))
    with pytest.raises(TypeError, match="config is a DQNConfig"):
        train_dqn({"seed": 1})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_steps": 0}, "num_steps"),
        ({"gradient_steps": 0}, "gradient_steps"),
        ({"learning_starts": -1}, "learning_starts"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"epsilon_end": 1.5}, "epsilon_end must be between 0.0 and 1.0, not 1.5"),
        ({"buffer_size": 63}, "buffer_size must be an integer of at least 64, not 63"),
        ({"activation": "gelu"}, "activation"),
    ],
)
def test_a_value_out_of_range_is_named(settings, message):
    with pytest.raises(ValueError, match=message):
        DQNConfig(**settings)
