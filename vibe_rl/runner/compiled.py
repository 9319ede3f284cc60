"""A run's compiled functions, for one seed or many: the first state, training, evaluation."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from vibe_rl.metrics import MetricsLogger
from vibe_rl.runner.config import TrainConfig
from vibe_rl.runner.environment import VectorEnv, check_actions, make_env
from vibe_rl.runner.evaluation import Evaluation, evaluate
from vibe_rl.runner.schedule import Stretch

# Keeps the random stream of evaluations apart from that of training.
_EVALUATION = 0xE7A1

Arrays = dict[str, np.ndarray]
Train = Callable[[Any, Any, np.ndarray, np.ndarray], tuple[Any, Any]]


class Algorithm(NamedTuple):
    """What an algorithm's file provides: pure functions that can be compiled and mapped over seeds.

    The config that they get is the run's but for the seed, which acts through `key` alone: so one
    trace serves all seeds.

    Attributes:
        name: What messages call it.
        config_class: The class of its configs.
        takes: The kind of actions that it is made for; None is any.
        init: `(config, env, key) -> state`: all that the run needs to go on from there, as a pytree
            of arrays.
        chunk: `(config, env, state, num_updates) -> (state, metrics)`: trains for so many updates,
            an int32 scalar; the metrics are a NamedTuple of scalars.
        act: `(config, env, state, obs) -> action`: the actions, without exploration, for
            observations `(n, obs_size)`.
    """

    name: str
    config_class: type[TrainConfig]
    takes: Literal["discrete", "continuous"] | None
    init: Callable[[Any, VectorEnv, jax.Array], Any]
    chunk: Callable[[Any, VectorEnv, Any, jax.Array], tuple[Any, Any]]
    act: Callable[[Any, VectorEnv, Any, jax.Array], jax.Array]

    def make_env(self, config: TrainConfig, env: Any = None) -> VectorEnv:
        """Make what a config is to be trained in.

        Args:
            config: The settings.
            env: An environment in place of the config's; see `environment.make_env`.

        Returns:
            The environments.

        Raises:
            TypeError: If the config is another algorithm's, or `env` is no environment.
            ValueError: If the environment is unknown, or its actions are of another kind.
        """
        if not isinstance(config, self.config_class):
            raise TypeError(f"config is a {self.config_class.__name__}, not {config!r}")
        envs = make_env(config.env_id if env is None else env, config.num_envs)
        if self.takes is not None:
            check_actions(self.name, envs, takes=self.takes)
        return envs


class Compiled:
    """A run's functions. With several seeds, what they take and give has a leading axis for these.

    Args:
        algorithm: What to train.
        config: The settings.
        env: The environments.
    """

    def __init__(self, algorithm: Algorithm, config: TrainConfig, env: VectorEnv) -> None:
        self._static = dataclasses.replace(config, seed=0, num_seeds=1)
        self._algorithm = algorithm
        self._env = env
        self._many = config.num_seeds > 1
        seeds = np.arange(config.seed, config.seed + config.num_seeds, dtype=np.uint32)
        self._seeds = seeds if self._many else seeds[0]
        # Made here, for what is compiled must not go on with an older `jax_default_prng_impl`.
        self._keys = self._map(jax.random.key, in_axes=0)(self._seeds)
        self._train: Train | None = None

    def init(self) -> Any:
        """The state before the first step."""
        init = jax.jit(_init, static_argnums=(0, 1, 2, 3))
        return init(self._algorithm.init, self._static, self._env, self._many, self._keys)

    def train(
        self, state: Any, stretch: Stretch, logger: MetricsLogger | None
    ) -> tuple[Any, Arrays]:
        """Train for a stretch, and log each record at once if there is a logger.

        Args:
            state: The state before it.
            stretch: The log intervals: equally many each time, so that this compiles once.
            logger: Where to log to; the same each time.

        Returns:
            The state after it, and the records as arrays.
        """
        if self._train is None:
            self._train = self._compile(state, stretch, logger)
        state, records = self._train(state, self._seeds, stretch.num_updates, stretch.step)
        # Waits for it. Not `jax.device_get`, which takes several times as long.
        return state, {name: np.asarray(values) for name, values in records.items()}

    def evaluate(self, state: Any, step: int) -> Arrays:
        """Evaluate a state: gives the record, or the records of all seeds as arrays."""
        evaluation = jax.jit(_evaluate, static_argnums=(0, 1, 2))
        run = functools.partial(evaluation, self._algorithm.act, self._static, self._env)
        result = self._map(run, in_axes=(0, 0, None))(state, self._keys, np.uint32(step))
        label = {"seed": self._seeds} if self._many else {}
        steps = np.full_like(self._seeds, step)
        return {"step": steps, **label, **jax.device_get(result)._asdict()}

    def _compile(self, state: Any, stretch: Stretch, logger: MetricsLogger | None) -> Train:
        what = (self._algorithm, self._static, self._env, self._many)
        train = _jit_unlogged(*what) if logger is None else _jit_train(*what, logger)
        compiled: Train = train.lower(
            state, self._seeds, stretch.num_updates, stretch.step
        ).compile()
        return compiled

    def _map(self, function: Callable[..., Any], in_axes: Any) -> Callable[..., Any]:
        return jax.vmap(function, in_axes) if self._many else function


def _init(
    init: Callable[[Any, VectorEnv, jax.Array], Any],
    config: TrainConfig,
    env: VectorEnv,
    many: bool,
    keys: jax.Array,
) -> Any:
    begin = functools.partial(init, config, env)
    # Not by vmap: several QR decompositions at once, each of a batch, hang XLA on two cores.
    return jax.lax.map(begin, keys) if many else begin(keys)


def _jit_train(
    algorithm: Algorithm,
    config: TrainConfig,
    env: VectorEnv,
    many: bool,
    logger: MetricsLogger | None,
) -> Any:
    """What trains for a stretch, to be compiled; with a logger, it logs to this one for good."""
    chunk = jax.jit(algorithm.chunk, static_argnums=(0, 1))

    def train(state: Any, seed: Any, num_updates: Any, steps: Any) -> tuple[Any, Any]:
        def interval(state: Any, x: Any) -> tuple[Any, Any]:
            num_updates, step = x
            state, metrics = chunk(config, env, state, num_updates)
            label = {"seed": seed} if many else {}
            return state, {"step": step, **label, **metrics._asdict()}

        intervals = (num_updates, steps)
        if logger is None:
            return jax.lax.scan(interval, state, intervals)
        return logger.scan(
            interval,
            state,
            intervals,
            every=1,
            step=None,
            lane="seed",
            rate="steps_per_second",
        )

    return jax.jit(jax.vmap(train, in_axes=(0, 0, None, None)) if many else train)


# The same for all seeds and runs. Not for many configs, for each keeps what it has compiled.
@functools.lru_cache(maxsize=8)
def _jit_unlogged(algorithm: Algorithm, config: TrainConfig, env: VectorEnv, many: bool) -> Any:
    return _jit_train(algorithm, config, env, many, None)


def _evaluate(  # noqa: PLR0917 - jax.jit counts static arguments by their place
    act: Callable[[Any, VectorEnv, Any, jax.Array], jax.Array],
    config: TrainConfig,
    env: VectorEnv,
    state: Any,
    key: jax.Array,
    step: jax.Array,
) -> Evaluation:
    key = jax.random.fold_in(jax.random.fold_in(key, _EVALUATION), step)
    policy = functools.partial(act, config, env, state)
    return evaluate(policy, env, config.eval_episodes, key)
