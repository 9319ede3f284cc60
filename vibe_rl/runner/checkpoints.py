"""A run's checkpoints: all that it needs to go on as if it had never stopped."""

import shutil
from collections.abc import Callable
from types import TracebackType
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from vibe_rl.run_dir import RunDir
from vibe_rl.runner.config import TrainConfig
from vibe_rl.runner.history import History


class CheckpointError(ValueError):
    """A checkpoint can't be read: it is damaged, or none of ours."""


class Saved(NamedTuple):
    """What a checkpoint holds.

    Attributes:
        state: The training state, random keys included.
        done: Updates that the run has behind it.
        history: What it has measured.
    """

    state: Any
    done: int
    history: History


class Checkpoints:
    """Saves a run's state in its directory by orbax, and restores it.

    A checkpoint is written beside the training, under another name, and renamed once it is whole: a
    kill meanwhile leaves the one before. Of the earlier ones, the latest stay, and the one of the
    best evaluation.

    Args:
        run_dir: The run's directory, in which nobody else trains: see `training_alone`.
        config: The run's settings.
    """

    def __init__(self, run_dir: RunDir, config: TrainConfig) -> None:
        self._run_dir = run_dir
        self._config = config
        self._history = History()
        for remains in run_dir.checkpoints.glob("step_*.orbax-checkpoint-tmp*"):
            shutil.rmtree(remains)  # of a save that was killed
        self._orbax = ocp.AsyncCheckpointer(ocp.CompositeCheckpointHandler())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._finish()
        self._orbax.close()

    def restore(self, init: Callable[[], Any]) -> Saved | None:
        """Read the latest checkpoint.

        Args:
            init: Gives a state of the run, whose structure and shapes the one restored has. It is
                traced, and not compiled.

        Returns:
            What it holds; None if there is none.

        Raises:
            CheckpointError: If it is damaged, or holds something else.
        """
        path = self._run_dir.latest_checkpoint()
        if path is None:
            return None
        sharding = jnp.zeros(()).sharding  # onto the device that a new state would be on
        like = jax.tree.map(lambda x: x.update(sharding=sharding), jax.eval_shape(init))
        args = ocp.args.Composite(
            state=ocp.args.StandardRestore(like), history=ocp.args.StandardRestore()
        )
        try:
            restored = self._orbax.restore(path, args=args)
            _check_types(restored.state, like)
        except (OSError, ValueError, TypeError, KeyError) as error:  # which, hangs on what is there
            raise CheckpointError(
                f"{path} is no checkpoint that this version has saved in a run with this config:"
                " train in a new run directory"
            ) from error
        arrays = {name: np.asarray(values) for name, values in restored.history.items()}
        done = int(arrays.pop("done"))
        self._history = History(arrays)
        self._finish()  # what a kill may have left undone
        return Saved(restored.state, done, History(arrays))

    def save(self, saved: Saved) -> None:
        """Begin to save a checkpoint; waits only if the one before is not through yet.

        Args:
            saved: What to save.
        """
        self._finish()
        self._history = History(saved.history.arrays())
        history = {"done": np.array(saved.done), **self._history.arrays()}
        self._orbax.save(
            self._run_dir.checkpoint_dir(saved.done * self._config.steps_per_update),
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(saved.state),
                history=ocp.args.StandardSave(history),
            ),
        )

    def _finish(self) -> None:
        """Wait for what is being saved; then mark the best checkpoint, and delete old ones."""
        self._orbax.wait_until_finished()
        best = self._history.best_step()
        if best is not None and self._run_dir.checkpoint_dir(best).is_dir():
            self._run_dir.mark_best(best)
        self._run_dir.cleanup_checkpoints(self._config.keep_checkpoints)


def _check_types(state: Any, like: Any) -> None:
    """Random keys come back as they were saved, whatever `jax_default_prng_impl` is now."""
    for got, expected in zip(jax.tree.leaves(state), jax.tree.leaves(like), strict=True):
        if (got.shape, got.dtype) != (expected.shape, expected.dtype):
            raise ValueError(f"{got.dtype}{got.shape} instead of {expected.dtype}{expected.shape}")
