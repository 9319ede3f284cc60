"""A classifier in Flax: two interleaved spirals, each step logged.

    python supervised.py [--steps 2000]

Needs `pip install '.[train]'` in the project's directory, for flax and optax.
"""

import argparse

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax.training.train_state import TrainState

from vibe_rl.metrics import MetricsLogger, log_step_progress, setup_logging
from vibe_rl.run_dir import RunDir


class Classifier(nn.Module):
    """A network with two hidden layers."""

    @nn.compact
    def __call__(self, points: jax.Array) -> jax.Array:
        """The logit of class 1, for each point."""
        hidden = nn.tanh(nn.Dense(64)(points))
        hidden = nn.tanh(nn.Dense(64)(hidden))
        return nn.Dense(1)(hidden)[..., 0]


def spirals(key: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    """`count` points on two spirals, float32 `(count, 2)`, and which spiral each is on."""
    turn_key, noise_key = jax.random.split(key)
    turn = jax.random.uniform(turn_key, (count,), minval=0.5, maxval=3.5) * jnp.pi
    label = jnp.arange(count) % 2
    angle = turn + jnp.pi * label
    points = turn[:, None] * jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=1) / 10
    return points + 0.02 * jax.random.normal(noise_key, points.shape), label


@jax.jit
def train_step(state: TrainState, key: jax.Array) -> tuple[TrainState, dict[str, jax.Array]]:
    """One gradient step on a fresh batch."""
    points, label = spirals(key, 256)

    def loss_fn(params: dict) -> tuple[jax.Array, jax.Array]:
        logits = state.apply_fn(params, points)
        loss = optax.sigmoid_binary_cross_entropy(logits, label).mean()
        return loss, jnp.mean((logits > 0) == label)

    (loss, accuracy), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
    metrics = {"loss": loss, "accuracy": accuracy, "grad_norm": optax.global_norm(grads)}
    return state.apply_gradients(grads=grads), metrics


def main(steps: int) -> None:
    """Train, and log each step."""
    setup_logging()
    key = jax.random.key(0)
    model = Classifier()
    state = TrainState.create(
        apply_fn=model.apply, params=model.init(key, jnp.zeros((1, 2))), tx=optax.adam(3e-3)
    )
    run = RunDir("spirals")
    # defer=1 reads a step's metrics one step later, so that the loop never waits for the newest.
    with MetricsLogger(run, defer=1) as logger:
        for step in range(1, steps + 1):
            state, metrics = train_step(state, jax.random.fold_in(key, step))
            logger.write({"step": step, **metrics})
            if step % 500 == 0:
                log_step_progress(step, steps, metrics=metrics)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=2_000)
    main(parser.parse_args().steps)
