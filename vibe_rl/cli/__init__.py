"""The `vibe-rl` command: this file starts and ends it, and each verb has a file of its own."""

import functools
import inspect
import io
import os
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from typing import Any, ParamSpec

from vibe_rl import __version__
from vibe_rl.cli.text import printable

_DESCRIPTION = "Train agents in JAX, logged live. `vibe-rl --version` prints the version."

_P = ParamSpec("_P")


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
        SystemExit: After `--help`: tyro ends the program.
    """
    if sys.stdout.errors == "strict":  # a terminal of few characters is no reason to stop
        sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
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
    print(f"vibe-rl: {printable(message)}", file=sys.stderr)
    return code


def later(verb: Callable[_P, None]) -> Callable[_P, Any]:
    """Make a verb one that only remembers what it is asked to do.

    Tyro parses, then calls: this way `main` knows when it has parsed.
    """
    # Tyro takes the end of a line in an argument's description for that of a paragraph.
    verb.__doc__ = re.sub(r"\n {8}", " ", inspect.cleandoc(verb.__doc__ or ""))

    @functools.wraps(verb)
    def bound(*args: _P.args, **kwargs: _P.kwargs) -> Callable[[], None]:
        return functools.partial(verb, *args, **kwargs)

    return bound


def _run(args: Sequence[str]) -> None:
    if list(args) == ["--version"]:
        print(f"vibe-rl {__version__}")
        return
    try:
        from vibe_rl.cli.app import VERBS, app  # noqa: PLC0415 - tyro is optional
    except ModuleNotFoundError as error:
        raise ImportError(f"needs {error.name}: pip install 'vibe-rl[cli]'") from error
    args = list(args)
    if args[:2] == ["train", "--resume"]:  # the algorithm is the run's, so that none is named
        args[1] = "resume"
    boxes = io.StringIO()
    try:
        with redirect_stderr(boxes):
            bound = app.cli(
                prog="vibe-rl",
                description=_DESCRIPTION,
                args=args,
            )
    except SystemExit as stop:
        if stop.code:
            verb = f" {args[0]}" if args and args[0] in VERBS else ""
            raise UsageError(
                re.sub(
                    "vibe-rl( [a-z]+)* --help", f"vibe-rl{verb} --help", _one_line(boxes.getvalue())
                )
            ) from None
        raise
    bound()


def _one_line(box: str) -> str:
    """What tyro says in a box, without what its `--help` says in more words."""
    parts = [""]
    for line in box.splitlines()[1:-1]:
        text = line.strip("│|").rstrip()  # the latter where there is no Unicode
        if text and set(text.strip()) <= {"─", "-"}:
            parts.append("")
        elif not text.startswith(" " * 8):  # an argument's help
            parts[-1] += f" {text.strip()}"
    parts = [part.split("Got errors:")[0].strip() for part in parts]
    return "; ".join(part for part in parts if not part.startswith("Argument helptext"))
