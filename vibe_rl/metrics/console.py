"""Training progress as log lines: `setup_logging` and `log_step_progress`."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from typing import Any, TextIO

# I 2026-03-07 09:12:41.508 [vibe_rl] Resumed at step 8000
_LINE_FORMAT = "%(levelname).1s %(asctime)s.%(msecs)03d [%(name)s] %(message)s"
_TIME_FORMAT = "%Y-%m-%d %H:%M:%S"


def setup_logging(level: int | str = logging.INFO) -> None:
    """Print the `vibe_rl` logger's messages to stderr, one compact line each.

    Call it once in a program, or again to change the level: the handlers that the `vibe_rl` logger
    has are replaced, not added to. A line is printed once also when the root logger has a console
    handler of its own, for the `vibe_rl` logger stops propagating; root handlers that write
    elsewhere, to a file say, or pytest's `caplog`, still get every message.

    Args:
        level: The lowest level to print, as a number or a name: `logging.DEBUG` or `"DEBUG"`.

    Raises:
        ValueError: If there is no level of that name.

    Examples:
        >>> setup_logging()
        >>> logging.getLogger("vibe_rl").info("Resumed at step 8000")
        ... # I 2026-03-07 09:12:41.508 [vibe_rl] Resumed at step 8000
    """
    logger = logging.getLogger("vibe_rl")
    logger.setLevel(level)
    logger.propagate = False
    for handler in logger.handlers[:]:
        logger.removeHandler(handler)
        handler.close()
    console = _ConsoleHandler()
    console.setFormatter(logging.Formatter(_LINE_FORMAT, _TIME_FORMAT))
    logger.addHandler(console)


def log_step_progress(
    step: int,
    total_steps: int,
    metrics: Mapping[str, Any] | None = None,
    logger_name: str = "vibe_rl",
) -> None:
    """Log one line that says how far training is, at level INFO.

    Where that level is off, the metrics are not looked at, so a JAX value is not waited for.

    Args:
        step: The current training step.
        total_steps: The planned number of training steps; 0 shows as 0.0%.
        metrics: Scalars to append; `step` and `wall_time` are left out. JAX and NumPy scalars
            look like the Python numbers of their value.
        logger_name: The logger that gets the line.

    Examples:
        >>> log_step_progress(8000, 64_000, metrics={"loss": 0.37, "return": 121.0})
        ... # I 2026-03-07 09:12:41.508 [vibe_rl] step 8000/64000 (12.5%) | loss=0.37 return=121
    """
    logger = logging.getLogger(logger_name)
    if not logger.isEnabledFor(logging.INFO):
        return
    step, total_steps = int(step), int(total_steps)
    percent = 100 * step / total_steps if total_steps > 0 else 0.0
    text = format_metrics(metrics or {})
    end = f" | {text}" if text else ""
    logger.info("step %d/%d (%.1f%%)%s", step, total_steps, percent, end, stacklevel=2)


def format_metrics(metrics: Mapping[str, Any]) -> str:
    """Format metrics for people: `loss=0.37 return=121`.

    Args:
        metrics: Scalars by name; `step` and `wall_time` are left out.

    Returns:
        One line. Floats have up to six significant digits; integers are whole.
    """
    return " ".join(
        f"{name}={_format_value(value)}"
        for name, value in metrics.items()
        if name not in {"step", "wall_time"}
    )


def _format_value(value: Any) -> str:
    if hasattr(value, "item") and getattr(value, "size", None) == 1:
        value = value.item()
    if isinstance(value, float):
        return f"{value:g}"
    return " ".join(str(value).split())  # an array's or a string's text may have line breaks


class _ConsoleHandler(logging.StreamHandler[TextIO]):
    """Prints to stderr, and hands on what the root logger's handlers would miss."""

    def emit(self, record: logging.LogRecord) -> None:
        # Looked up each time: a progress bar puts its own stream there to print above itself.
        self.stream = sys.stderr
        super().emit(record)
        for handler in logging.getLogger().handlers:
            if record.levelno >= handler.level and not _is_console(handler):
                handler.handle(record)


def _is_console(handler: logging.Handler) -> bool:
    rich_console = getattr(handler, "console", None)  # rich.logging.RichHandler
    stream = getattr(rich_console, "file", None) or getattr(handler, "stream", None)
    return stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)
