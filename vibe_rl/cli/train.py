"""`vibe-rl train`: train an agent, and log the run while it goes on."""

import dataclasses
import logging
import os
import shlex
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import OmitArgPrefixes, Positional, arg
from tyro.extras import SubcommandApp

from vibe_rl import runner
from vibe_rl.cli import TerminatedError, UsageError, later
from vibe_rl.cli.select import find_run
from vibe_rl.runner import DQNConfig, PPOConfig, SACConfig
from vibe_rl.runner.config import TrainConfig

if TYPE_CHECKING:
    from vibe_rl.metrics import LogBackend
    from vibe_rl.run_dir import RunDir

train = SubcommandApp()

_CONFIGS: dict[str, type[TrainConfig]] = {"ppo": PPOConfig, "sac": SACConfig, "dqn": DQNConfig}

_HAS_TENSORBOARD = find_spec("tensorboardX") is not None


# Nothing is checked at first: tyro would spread the error over a box.
class _UncheckedPPOConfig(PPOConfig):
    def __post_init__(self) -> None:
        """Check nothing yet."""


class _UncheckedSACConfig(SACConfig):
    def __post_init__(self) -> None:
        """Check nothing yet."""


class _UncheckedDQNConfig(DQNConfig):
    def __post_init__(self) -> None:
        """Check nothing yet."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LogOptions:
    """What a run is logged to besides its metrics file."""

    tensorboard: Annotated[
        bool, arg(help_behavior_hint="(default: if tensorboardX is installed)")
    ] = _HAS_TENSORBOARD
    """Log to TensorBoard's files too, from a process of its own."""

    wandb: bool = False
    """Log to Weights & Biases too, from a process of its own."""

    wandb_project: str = "vibe_rl"
    """The W&B project."""

    wandb_mode: Literal["online", "offline"] | None = None
    """Whether W&B uploads the run. Without this, what W&B is set to."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunOptions(LogOptions):
    """Where a new run is kept, and what it is logged to."""

    experiment_name: Annotated[
        str | None,
        arg(metavar="NAME", help_behavior_hint="(default: the algorithm and the environment)"),
    ] = None
    """Begins the name of the run's directory."""

    base_dir: Annotated[str, arg(metavar="DIR")] = "runs"
    """Where the run's directory is made."""


@train.command
@later
def ppo(config: OmitArgPrefixes[_UncheckedPPOConfig], options: OmitArgPrefixes[RunOptions]) -> None:
    """Train by proximal policy optimisation. The defaults solve CartPole-v1 in less than a minute.

    Args:
        config: The settings of the algorithm.
        options: Where the run is kept, and what it is logged to.
    """
    _begin("ppo", config, options)


@train.command
@later
def sac(config: OmitArgPrefixes[_UncheckedSACConfig], options: OmitArgPrefixes[RunOptions]) -> None:
    """Train by soft actor-critic, for continuous actions. The defaults solve Pendulum-v1.

    Args:
        config: The settings of the algorithm.
        options: Where the run is kept, and what it is logged to.
    """
    _begin("sac", config, options)


@train.command
@later
def dqn(config: OmitArgPrefixes[_UncheckedDQNConfig], options: OmitArgPrefixes[RunOptions]) -> None:
    """Train a deep Q-network, for discrete actions. The defaults solve CartPole-v1.

    Args:
        config: The settings of the algorithm.
        options: Where the run is kept, and what it is logged to.
    """
    _begin("dqn", config, options)


@train.command
@later
def resume(
    run: Annotated[Positional[str], arg(metavar="RUN")],
    options: OmitArgPrefixes[LogOptions],
    *,
    total_timesteps: int | None = None,
    base_dir: Annotated[str, arg(metavar="DIR")] = "runs",
) -> None:
    """Go on with a run from its latest checkpoint, with its settings: `vibe-rl train --resume RUN`.

    Args:
        run: The run's directory, its id, the beginning of its id, or `latest`.
        options: What the run is logged to.
        total_timesteps: Train for longer than was planned, if nothing hangs on the length.
        base_dir: Where runs' directories are.
    """
    with _until_stopped() as stop:
        from vibe_rl.run_dir import RunDir  # noqa: PLC0415 - --help shall not wait for NumPy

        root = find_run(run, base_dir)
        if not root.is_dir():
            raise UsageError(f"{run!r} is a metrics file; a run to go on with has a directory")
        run_dir = RunDir(run_id=root.name, base_dir=root.parent)
        try:
            saved = run_dir.load_config()
        except (FileNotFoundError, ValueError) as error:
            raise UsageError(f"{run!r} has no config to go on with: {error}") from error
        algorithm = _algorithm_of(saved)
        if total_timesteps is not None:
            saved["total_timesteps"] = total_timesteps
        config = _checked(algorithm, saved, run_dir)
        _train(algorithm, config, run_dir, options, stop, is_new=False)


def _begin(algorithm: str, unchecked: TrainConfig, options: RunOptions) -> None:
    with _until_stopped() as stop:
        from vibe_rl.run_dir import RunDir  # noqa: PLC0415 - --help shall not wait for NumPy

        config = _checked(algorithm, vars(unchecked))
        name = options.experiment_name or f"{algorithm}_{config.env_id}"
        try:
            run_dir = RunDir(name, options.base_dir)
        except ValueError as error:
            raise UsageError(str(error)) from error
        _train(algorithm, config, run_dir, options, stop, is_new=True)


def _algorithm_of(saved: dict[str, Any]) -> str:
    """The algorithm whose config has these fields."""
    for algorithm, config_class in _CONFIGS.items():
        if {field.name for field in dataclasses.fields(config_class)} == saved.keys():
            return algorithm
    raise UsageError("its config is of no algorithm of this version: train it by its own program")


def _checked(algorithm: str, settings: dict[str, Any], run: "RunDir | None" = None) -> Any:
    """The config, once it is sure that a run with it can begin, or that this run can go on so."""
    train = getattr(runner, f"train_{algorithm}")  # first: its error names the extra that is absent
    from vibe_rl.runner.run_settings import check_settings  # noqa: PLC0415 - as above

    try:
        config = _CONFIGS[algorithm](**settings)
        env = getattr(sys.modules[train.__module__], algorithm.upper()).make_env(config)
        if run is not None:
            check_settings(run, config, env)
    except (TypeError, ValueError) as error:  # a config that was edited may hold anything
        raise UsageError(str(error)) from error
    return config


def _train(
    algorithm: str,
    config: Any,
    run: "RunDir",
    options: LogOptions,
    stop: Callable[..., None],
    *,
    is_new: bool,
) -> None:
    from vibe_rl.metrics import setup_logging  # noqa: PLC0415 - as above
    from vibe_rl.runner.checkpoints import CheckpointError  # noqa: PLC0415

    stop()
    setup_logging()
    log = shlex.quote(os.path.relpath(run.log_path()))
    logging.getLogger("vibe_rl").info("Logging to %s", log)
    try:
        backends = _backends(config, run, options)
    except Exception as error:
        if is_new:
            shutil.rmtree(run.root)  # made just now, and nothing is in it
        raise UsageError(" ".join(str(error).split())) from error
    try:
        _, metrics = getattr(runner, f"train_{algorithm}")(
            config, run_dir=run, callback=stop, progress=True, backends=backends
        )
    except CheckpointError as error:
        raise UsageError(str(error)) from error

    print(f"Run directory: {os.path.relpath(run.root)}")
    if "eval_return_mean" in metrics:
        final = metrics["eval_return_mean"][..., -1].mean()
        print(f"Final return:  {final:.1f} (mean of {config.eval_episodes} evaluation episodes)")
    else:
        final = metrics["episode_return"][..., -1].mean()
        print(f"Final return:  {final:.1f} (mean of up to 100 episodes)")
    print(f"Last record:   tail -n 1 {log}")
    print(f"Curves:        vibe-rl watch {shlex.quote(os.path.relpath(run.root))}")
    plot = run.artifact_path("learning_curve.png")
    if plot.exists():
        print(f"Plot:          {os.path.relpath(plot)}")
    if options.tensorboard:
        # TensorBoard's files are written by tensorboardX; who looks at them needs the viewer too.
        install = "" if find_spec("tensorboard") else "pip install tensorboard && "
        logs = shlex.quote(os.path.relpath(run.logs))
        print(f"TensorBoard:   {install}tensorboard --logdir {logs}")


def _backends(config: TrainConfig, run: "RunDir", options: LogOptions) -> "list[LogBackend]":
    from vibe_rl.metrics import (  # noqa: PLC0415 - as above
        TensorBoardBackend,
        WandbBackend,
        isolated,
    )

    split = {"split_by": "seed"} if config.num_seeds > 1 else {}
    backends: list[LogBackend] = []
    try:
        if options.tensorboard:
            backends.append(isolated(TensorBoardBackend, log_dir=run.logs, **split))
        if options.wandb:
            mode = {} if options.wandb_mode is None else {"mode": options.wandb_mode}
            settings = {"project": options.wandb_project, "config": dataclasses.asdict(config)}
            backends.append(isolated(WandbBackend, run_dir=run.root, **settings, **mode, **split))
    except Exception:
        for backend in backends:
            backend.close()
        raise
    return backends


@contextmanager
def _until_stopped() -> Iterator[Callable[..., None]]:
    """Give a callback that ends the command if SIGTERM or Ctrl-C has come.

    A handler that raises at once does so wherever Python happens to be: in the start of JAX's
    libraries, where it kills the process; or in JAX's hook into garbage collection, where Python
    drops exceptions, and the run would go on for ever. A second Ctrl-C raises none the less.

    What a script's shell or `nohup` has had us ignore stays ignored.
    """
    signals: list[int] = []

    def note(signum: int, _: FrameType | None) -> None:
        if signum == signal.SIGINT and signum in signals:
            raise KeyboardInterrupt
        signals.append(signum)

    def stop(*_: Any) -> None:
        if signals:
            raise KeyboardInterrupt if signals[0] == signal.SIGINT else TerminatedError

    previous = {
        each: signal.signal(each, note)
        for each in (signal.SIGINT, signal.SIGTERM)
        if signal.getsignal(each) is not signal.SIG_IGN
    }
    try:
        yield stop
    finally:
        for each, handler in previous.items():
            signal.signal(each, handler)
