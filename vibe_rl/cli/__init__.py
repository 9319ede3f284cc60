"""The `vibe-rl` command: this file starts and ends it, and each verb has a file of its own."""

import os
import sys
from collections.abc import Sequence

from vibe_rl import __version__


class UsageError(Exception):
    """What was asked for can't be done; the message says why, and what can."""


class TerminatedError(Exception):
    """SIGTERM came, and the verb has brought its work to a clean end."""


def main(args: Sequence[str] | None = None) -> int:
    """Run the `vibe-rl` command.

    Args:
        args: What follows the command's name; None takes it from `sys.argv`.

    Returns:
        The exit code: 0; 1 after an error; 2 if what was asked for can't be done; 130 after Ctrl-C;
        141 if nobody reads stdout any more; 143 after SIGTERM. Other than 0 and 141, stderr says
        why in one line.

    Raises:
        SystemExit: After `--help`, or an option that can't be understood: tyro ends the program.
    """
    try:
        try:
            _run(sys.argv[1:] if args is None else args)
        finally:
            sys.stdout.flush()  # here, for at Python's exit a closed pipe can't be caught
    except BrokenPipeError:  # `vibe-rl --help | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is left
        return 141
    except KeyboardInterrupt:
        message, code = "stopped by Ctrl-C", 130
    except TerminatedError:
        message, code = "stopped by SIGTERM", 143
    except UsageError as error:
        message, code = f"error: {error}", 2
    except (ImportError, OSError) as error:
        message, code = f"error: {error}", 1
    else:
        return 0
    print(f"vibe-rl: {message}", file=sys.stderr)
    return code


def _run(args: Sequence[str]) -> None:
    if list(args) == ["--version"]:
        print(f"vibe-rl {__version__}")
        return
    try:
        from vibe_rl.cli.app import app  # noqa: PLC0415 - tyro is optional
    except ModuleNotFoundError as error:
        raise ImportError(f"needs {error.name}: pip install 'vibe-rl[cli]'") from error
    args = list(args)
    if args[:2] == ["train", "--resume"]:  # the algorithm is the run's, so that none is named
        args[1] = "resume"
    app.cli(
        prog="vibe-rl",
        description="Train agents in JAX, logged live. `vibe-rl --version` prints the version.",
        args=args,
    )
