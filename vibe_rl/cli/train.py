"""`vibe-rl train`: train an agent, and log the run while it goes on."""

import dataclasses
import logging
import os
import shlex
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import OmitArgPrefixes, arg
from tyro.extras import SubcommandApp

from vibe_rl.cli import TerminatedError, UsageError
from vibe_rl.runner import PPOConfig

if TYPE_CHECKING:
    from vibe_rl.run_dir import RunDir

train = SubcommandApp()

_HAS_TENSORBOARD = find_spec("tensorboardX") is not None


class _UncheckedPPOConfig(PPOConfig):
    def __post_init__(self) -> None:
        """Check nothing yet: tyro would spread the error over a box."""


@train.command
def ppo(
    config: OmitArgPrefixes[_UncheckedPPOConfig],
    *,
    experiment_name: Annotated[
        str | None, arg(metavar="NAME", help_behavior_hint="(default: ppo and the environment)")
    ] = None,
    base_dir: Annotated[str, arg(metavar="DIR")] = "runs",
    tensorboard: Annotated[
        bool, arg(help_behavior_hint="(default: if tensorboardX is installed)")
    ] = _HAS_TENSORBOARD,
    wandb: bool = False,
    wandb_project: str = "vibe_rl",
    wandb_mode: Literal["online", "offline"] | None = None,
) -> None:
    """Train by proximal policy optimisation. The defaults solve CartPole-v1 in less than a minute.

    Args:
        config: The settings of the algorithm.
        experiment_name: Begins the name of the run's directory.
        base_dir: Where the run's directory is made.
        tensorboard: Log to TensorBoard's files too, from a process of its own.
        wandb: Log to Weights & Biases too, from a process of its own.
        wandb_project: The W&B project.
        wandb_mode: Whether W&B uploads the run. Without this, what W&B is set to.
    """
    with _until_stopped() as stop:
        # Here, because --help shall not wait for JAX.
        from vibe_rl.metrics import (  # noqa: PLC0415
            TensorBoardBackend,
            WandbBackend,
            isolated,
            setup_logging,
        )
        from vibe_rl.run_dir import RunDir  # noqa: PLC0415
        from vibe_rl.runner import train_ppo  # noqa: PLC0415
        from vibe_rl.runner.environment import make_env  # noqa: PLC0415

        stop()
        setup_logging()
        try:
            checked = PPOConfig(**vars(config))
            make_env(checked.env_id, checked.num_envs)  # before a wrong one gets a directory
            run = RunDir(experiment_name or f"ppo_{checked.env_id}", base_dir)
        except ValueError as error:
            raise UsageError(str(error)) from error
        log = shlex.quote(os.path.relpath(run.log_path()))
        logging.getLogger("vibe_rl").info("Logging to %s", log)
        backends = []
        try:
            if tensorboard:
                backends.append(isolated(TensorBoardBackend, log_dir=run.logs))
            if wandb:
                options = {} if wandb_mode is None else {"mode": wandb_mode}
                settings = {"project": wandb_project, "config": dataclasses.asdict(checked)}
                backends.append(isolated(WandbBackend, run_dir=run.root, **settings, **options))
        except Exception as error:
            for backend in backends:
                backend.close()
            shutil.rmtree(run.root)  # made just now, and nothing is in it
            raise UsageError(" ".join(str(error).split())) from error
        _, metrics = train_ppo(
            checked, run_dir=run, callback=stop, progress=True, backends=backends
        )

    print(f"Run directory: {os.path.relpath(run.root)}")
    print(f"Final return:  {metrics['episode_return'][-1]:.1f} (mean of up to 100 episodes)")
    print(f"Last record:   tail -n 1 {log}")
    if plot := _plot(run):
        print(f"Plot:          {os.path.relpath(plot)}")
    if tensorboard:
        print(f"Curves:        tensorboard --logdir {shlex.quote(os.path.relpath(run.logs))}")


def _plot(run: "RunDir") -> Path | None:
    """Draw the run's return, if matplotlib is there and an episode has ended."""
    if find_spec("matplotlib") is None:
        return None
    from vibe_rl.plotting import group_runs, plot_runs, save_figure  # noqa: PLC0415 - as above

    try:
        figure = plot_runs(group_runs([run]))
    except ValueError:
        return None
    return save_figure(figure, run.artifact_path("learning_curve.png"))


@contextmanager
def _until_stopped() -> Iterator[Callable[..., None]]:
    """Give a callback that ends the command if SIGTERM or Ctrl-C has come.

    A handler that raises at once does so wherever Python happens to be: in the start of JAX's
    libraries, where it kills the process; or in JAX's hook into garbage collection, where Python
    drops exceptions, and the run would go on for ever. A second Ctrl-C raises none the less.
    """
    signals: list[int] = []

    def note(signum: int, _: FrameType | None) -> None:
        if signum == signal.SIGINT and signum in signals:
            raise KeyboardInterrupt
        signals.append(signum)

    def stop(*_: Any) -> None:
        if signals:
            raise KeyboardInterrupt if signals[0] == signal.SIGINT else TerminatedError

    previous = {each: signal.signal(each, note) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for each, handler in previous.items():
            signal.signal(each, handler)
