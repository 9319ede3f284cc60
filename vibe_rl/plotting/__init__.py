"""Learning curves as papers show them: a line a group of runs, and a band over its seeds."""

from vibe_rl.plotting.aggregate import Curve, aggregate
from vibe_rl.plotting.figure import plot_runs, save_figure
from vibe_rl.plotting.groups import group_runs

__all__ = ["Curve", "aggregate", "group_runs", "plot_runs", "save_figure"]
