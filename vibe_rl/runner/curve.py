"""The picture that a run leaves of itself."""

import logging
from importlib.util import find_spec

import numpy as np

from vibe_rl.plotting import group_runs, plot_runs, save_figure
from vibe_rl.run_dir import RunDir

_logger = logging.getLogger(__name__)


def save_learning_curve(run_dir: RunDir, returns: np.ndarray) -> None:
    """Draw a run's returns as `artifacts/learning_curve.png`, if matplotlib is there.

    What fails is logged as a warning: no training shall fail for its picture.

    Args:
        run_dir: The run, whose logger is closed.
        returns: What it logged as returns; if all are NaN, there is nothing to draw.
    """
    if find_spec("matplotlib") is None or np.isnan(returns).all():
        return
    try:
        figure = plot_runs(group_runs([run_dir]))
        save_figure(figure, run_dir.artifact_path("learning_curve.png"))
    except Exception as error:  # noqa: BLE001 - whatever it is
        _logger.warning("The run has no learning curve: %s", error)
