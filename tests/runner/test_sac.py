"""The numerics of SAC against calculations by hand."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from endless import Endless
from gymnax.environments import spaces

from vibe_rl.metrics import read_metrics
from vibe_rl.run_dir import RunDir
from vibe_rl.runner import SACConfig, off_policy, sac, train_sac
from vibe_rl.runner.compiled import Compiled
from vibe_rl.runner.environment import make_env
from vibe_rl.runner.replay import Transition

SMALL = SACConfig(
    total_timesteps=64,
    log_interval=16,
    eval_interval=0,
    checkpoint_interval=0,
    gradient_steps=1,
    tau=0.25,
    buffer_size=100,
    batch_size=8,
    learning_starts=24,
    hidden_sizes=(8,),
)


@partial(jax.jit, static_argnums=(0, 1))
def collect(config, env, state):
    return off_policy.collect(config, env, state, partial(sac.explore, config, env))


@partial(jax.jit, static_argnums=(0, 1))
def learn(config, env, state, key):
    step = partial(sac.gradient_step, config, env)
    return off_policy.learn(config, state.learner, state.replay, key, step)[0]


def transitions(reward, terminated):
    nothing = jnp.zeros((len(reward), 1))
    return Transition(nothing, nothing, jnp.array(reward), nothing, jnp.array(terminated))


def test_the_target_is_the_one_computed_by_hand():
    batch = transitions([1.0, -2.0, 3.0], [False, False, True])
    next_values = jnp.array([[4.0, 6.0], [9.0, 5.0], [7.0, 8.0]])
    log_prob = jnp.array([-0.5, 1.5, 2.0])
    target = sac.soft_target(batch, next_values, log_prob, jnp.array(0.2), gamma=0.9)
    expected = [1.0 + 0.9 * (4.0 + 0.2 * 0.5), -2.0 + 0.9 * (5.0 - 0.2 * 1.5), 3.0]
    np.testing.assert_allclose(target, expected, rtol=1e-6)


class FixedCritic:
    """Values that stand in its parameters, plus the action."""

    def values(self, params, obs, action):
        return params + action


def test_the_critics_loss_is_the_one_computed_by_hand():
    values = np.array([[1.0, 2.0], [3.0, 5.0]])
    batch = transitions([0.0, 0.0], [False, False])
    target = np.array([2.0, 4.5])
    loss, (_, mean) = sac.critic_loss(jnp.array(values), FixedCritic(), batch, jnp.array(target))
    by_hand = sum((values[i, j] - target[i]) ** 2 for i in range(2) for j in range(2)) / 2 / 2
    assert loss == pytest.approx(by_hand, rel=1e-6)
    assert mean == pytest.approx(2.75)


class FixedActor:
    """Draws the action that stands in its parameters, with a log-density of three times that."""

    def policy(self, params, obs):
        class Policy:
            def sample(self, key):
                return params[:, None], 3.0 * params

        return Policy()


def test_the_actors_loss_and_its_gradient_go_through_the_action():
    params, values = jnp.array([0.5, -1.0]), jnp.array([[1.0, 2.0], [4.0, 3.0]])

    def loss(params):
        return sac.actor_loss(
            params,
            FixedActor(),
            values,
            FixedCritic(),
            jnp.zeros((2, 1)),
            alpha=jnp.array(0.1),
            key=jax.random.key(0),
        )

    (error, (_, log_prob)), grads = jax.value_and_grad(loss, has_aux=True)(params)
    by_hand = ((0.1 * 1.5 - 1.5) + (0.1 * -3.0 - 2.0)) / 2
    assert error == pytest.approx(by_hand, rel=1e-6)
    np.testing.assert_allclose(log_prob, [1.5, -3.0])
    np.testing.assert_allclose(grads, [(0.3 - 1.0) / 2] * 2, rtol=1e-5)


@pytest.mark.parametrize(("entropy", "rises"), [(-2.0, True), (0.0, False)])
def test_the_temperature_rises_while_there_is_too_little_entropy(entropy, rises):
    log_prob = jnp.full(4, -entropy)
    grad = jax.grad(sac.temperature_loss)(jnp.log(0.5), log_prob, -1.0)
    assert grad == pytest.approx(0.5 * (entropy + 1.0))
    assert (-grad > 0) == rises


@pytest.fixture(scope="module")
def begun():
    """The environments of `SMALL`, and its first state."""
    env = make_env("Pendulum-v1", SMALL.num_envs)
    return env, Compiled(sac.SAC, SMALL, env).init()


def test_the_target_critics_follow_by_tau(begun):
    env, state = begun
    state = collect(SMALL, env, state)
    old = state.learner
    new = learn(SMALL, env, state, jax.random.key(1))
    jax.tree.map(
        lambda target, online, before: np.testing.assert_allclose(
            target, 0.25 * online + 0.75 * before, rtol=1e-4, atol=1e-6
        ),
        new.target_params,
        new.params.critic,
        old.target_params,
    )
    changed = jax.tree.map(lambda a, b: bool((a != b).any()), new.params, old.params)
    assert changed.log_alpha
    assert any(jax.tree.leaves(changed.actor))
    assert any(jax.tree.leaves(changed.critic))


def test_actions_reach_the_bounds_of_the_environment_and_are_kept_within_one(begun):
    env, state = begun
    np.testing.assert_allclose(env.actions.scale(jnp.array([[-1.0], [0.5]])), [[-2.0], [1.0]])
    for _ in range(5):
        state = collect(SMALL, env, state)
    assert abs(state.replay.experience.action).max() <= 1.0
    actor = jax.tree.map(lambda x: 100.0 * jnp.ones_like(x), state.learner.params.actor)
    params = state.learner.params._replace(actor=actor)
    sure = state._replace(learner=state.learner._replace(params=params))
    np.testing.assert_allclose(sac.act(SMALL, env, sure, jnp.ones((3, 3))), np.full((3, 1), 2.0))


@pytest.fixture(scope="module")
def endless(tmp_path_factory):
    """A run whose value is known, and what it gave."""
    config = dataclasses.replace(
        SMALL,
        total_timesteps=8_000,
        gamma=0.8,
        tau=0.1,
        learning_rate=1e-2,
        initial_alpha=1e-6,
        batch_size=16,
    )
    run = RunDir("endless", tmp_path_factory.mktemp("runs"))
    return run, *train_sac(config, env=Endless(spaces.Box(-1.0, 1.0, (1,))), run_dir=run)


def test_the_value_of_a_task_is_not_cut_off_by_its_time_limit(endless):
    _, _, metrics = endless
    assert metrics["q_mean"][-1] == pytest.approx(5.0, abs=0.4)  # 1 / (1 - gamma); 2.4 if an end


def test_a_run_logs_its_fields(endless):
    run, _, metrics = endless
    fields = {"actor_loss", "critic_loss", "alpha", "entropy", "q_mean"}
    assert {"step", "episode_return", "episode_length"} | fields <= set(metrics)
    np.testing.assert_array_equal(metrics["step"], range(16, 8_001, 16))
    for name in fields:
        assert np.isnan(metrics[name][0])  # 16 of 24 steps: nothing learned yet
        assert np.isfinite(metrics[name][1:]).all()
    records = read_metrics(run)
    assert [record["step"] for record in records] == [*range(16, 8_001, 16)]
    assert set(records[-1]) == fields | {
        *("step", "episode_return", "episode_length", "steps_per_second", "wall_time")
    }


def test_several_seeds_of_the_default_networks_learn_apart(caplog):
    # Their orthogonal weights, drawn under vmap, have hung XLA.
    config = dataclasses.replace(SMALL, num_seeds=2, hidden_sizes=SACConfig().hidden_sizes)
    with jax.log_compiles():
        state, metrics = train_sac(config, callback=lambda *args: None)  # stops at each record
    assert sum("XLA compilation of jit(train)" in each for each in caplog.messages) == 1
    assert state.num_steps.tolist() == [64, 64]
    assert metrics["critic_loss"].shape == (2, 4)
    assert np.isfinite(metrics["critic_loss"][:, 1:]).all()
    assert (metrics["critic_loss"][0, 1:] != metrics["critic_loss"][1, 1:]).all()


def test_what_it_cannot_learn_is_refused():
    with pytest.raises(ValueError, match="those of CartPole-v1 are discrete"):
        train_sac(SACConfig(env_id="CartPole-v1"))
    unbounded = Endless(spaces.Box(-np.inf, np.inf, (1,)))
    with pytest.raises(ValueError, match="those of Endless have none: use train_ppo"):
        train_sac(SACConfig(), env=unbounded)
    with pytest.raises(TypeError, match="config is a SACConfig"):
        train_sac({"seed": 1})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gradient_steps": 0}, "gradient_steps"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"tau": 1.5}, "tau must be between 0.0 and 1.0, not 1.5"),
        ({"initial_alpha": 0.0}, "initial_alpha must be greater than 0.0"),
        ({"target_entropy": float("nan")}, "target_entropy must be a finite number"),
        ({"buffer_size": 127}, "buffer_size must be an integer of at least 128, not 127"),
    ],
)
def test_a_value_out_of_range_is_named(settings, message):
    with pytest.raises(ValueError, match=message):
        SACConfig(**settings)
