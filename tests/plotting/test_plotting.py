"""Learning curves: the right numbers, on a figure that says what it shows."""

import math
import subprocess
import sys

import numpy as np
import pytest

from vibe_rl.metrics import MetricsLogger
from vibe_rl.plotting import aggregate, group_runs, plot_runs, save_figure
from vibe_rl.plotting.aggregate import POINTS
from vibe_rl.plotting.lines import LeftOutWarning
from vibe_rl.run_dir import RunDir

STEPS = np.arange(0.0, 100.0)


def seeds(*heights, x=STEPS):
    return [(x, np.full(len(x), float(height))) for height in heights]


def make_run(base, name, values, config=None, **fields):
    run = RunDir(name, base)
    run.save_config(config or {})
    with MetricsLogger(run) as logger:
        logger.write_batch({"step": np.arange(len(values)), "return": values, **fields})
    return run


def labels(figure):
    """What the legend says, or for one line what stands above it."""
    legend = figure.axes[0].get_legend() or next(iter(figure.legends), None)
    if legend is None:
        return [title(figure).partition("; ")[0]]
    return [text.get_text() for text in legend.get_texts()]


def title(figure):
    return figure.axes[0].get_title(loc="left")


def test_the_centre_and_the_standard_error():
    curve = aggregate(seeds(1, 2, 3, 6))
    assert (curve.y == 3).all()
    assert curve.seeds == 4
    error = np.std([1, 2, 3, 6], ddof=1) / 2
    np.testing.assert_allclose(curve.high - curve.y, error)
    np.testing.assert_allclose(curve.y - curve.low, error)
    assert (aggregate(seeds(1, 2, 9), center="median", band="none").y == 2).all()
    iqm = aggregate(seeds(-50, 1, 2, 3, 4, 5, 6, 900), center="iqm", band="none")
    assert (iqm.y == 3.5).all()


def test_the_bootstrap_interval_covers_what_it_should():
    draws = np.random.default_rng(0)
    covered = 0
    for _ in range(20):
        sample = draws.normal(7, 2, size=30)
        curve = aggregate(seeds(*sample, x=STEPS[:2]), band="ci")
        covered += curve.low[0] <= 7 <= curve.high[0]
        assert 0.8 < (curve.high[0] - curve.low[0]) / (3.92 * 2 / math.sqrt(30)) < 1.2 or covered
    assert covered >= 16
    with pytest.raises(ValueError, match="a standard error is the mean's, not the iqm's"):
        aggregate(seeds(1, 2), center="iqm", band="se")


def test_seeds_at_other_steps_meet_on_a_common_grid():
    x = [np.arange(0.0, 90.0, 1.5), np.arange(10.0, 100.0, 2.0)]
    curve = aggregate([(each, 2 * each + shift) for each, shift in zip(x, (0, 6), strict=True)])
    assert (curve.x[0], curve.x[-1]) == (10.0, 88.5)
    np.testing.assert_allclose(curve.y, 2 * curve.x + 3)
    with pytest.raises(ValueError, match="no steps in common"):
        aggregate([*seeds(1, x=STEPS), *seeds(1, x=STEPS + 1000)])


def test_many_points_become_means_of_stretches():
    x = np.arange(400_000.0)
    noise = np.random.default_rng(0).normal(size=(2, len(x)))
    curve = aggregate([(x, 5 + each) for each in noise])
    assert len(curve.x) == POINTS
    assert np.abs(curve.y - 5).max() < 0.3


def test_a_single_seed_keeps_its_extremes():
    y = np.zeros(500_000)
    y[[123_456, 400_001]] = 7, -9
    curve = aggregate([(np.arange(len(y), dtype=float), y)])
    assert len(curve.x) <= 3 * POINTS
    assert (curve.y.max(), curve.y.min()) == (7, -9)


def test_a_seed_that_is_not_finite_makes_a_gap_and_is_marked():
    curves = seeds(1, 2, 3)
    curves[1][1][40:50] = math.nan
    curves[2][1][70] = -math.inf
    for center in ("mean", "median", "iqm"):
        curve = aggregate(curves, center=center, band="ci")
        gaps = {*range(40, 50), 70}
        assert set(np.flatnonzero(np.isnan(curve.y))) == gaps
        assert set(np.flatnonzero(np.isnan(curve.low))) == gaps
        assert set(curve.nonfinite) == gaps
    other = seeds(4, x=STEPS[::2] + 0.5)
    assert np.isnan(aggregate([*curves, *other]).y).any()


def test_a_moving_average_is_one_and_widens_gaps():
    y = np.array([0.0, 3.0, 6.0, math.nan, 0.0, 0.0, 3.0])
    curve = aggregate([(np.arange(7.0), y)], smooth=3)
    np.testing.assert_allclose(curve.y, [1.5, 3, math.nan, math.nan, math.nan, 1, 1.5])
    line = aggregate([(np.arange(300.0), np.arange(300.0))], smooth=20)
    assert np.abs(line.y[20:-20] - line.x[20:-20]).max() <= 0.5


def test_runs_are_grouped_by_experiment_run_or_config(tmp_path):
    runs = [
        make_run(tmp_path, name, [1.0], {"lr": lr, "net": {"width": 64}})
        for name, lr in (("ppo", 1e-3), ("ppo", 3e-4), ("dqn_x", 1e-3))
    ]
    assert group_runs(runs) == {"ppo": runs[:2], "dqn_x": runs[2:]}
    assert list(group_runs(runs, "run")) == [run.run_id for run in runs]
    assert group_runs(runs, "lr,net.width") == {
        "lr=0.001, net.width=64": [runs[0], runs[2]],
        "lr=0.0003, net.width=64": [runs[1]],
    }
    with pytest.raises(ValueError, match=r"has no 'net.depth'; it has lr, net"):
        group_runs(runs, "net.depth")
    assert list(group_runs([runs[0].log_path()])) == ["ppo"]


def test_a_figure_says_what_it_shows(tmp_path):
    runs = [make_run(tmp_path, "ppo", np.arange(50) + seed) for seed in range(3)]
    runs.append(make_run(tmp_path, "dqn", [1.0] * 20 + [math.nan] + [2.0] * 29))
    figure = plot_runs(group_runs(runs), "return", smooth=5)
    axes = figure.axes[0]
    assert labels(figure) == ["ppo (3 seeds)", "dqn", "NaN or infinite"]
    assert axes.get_ylabel() == "return\n(moving average over 5 records)"
    assert axes.get_xlabel() == "step"
    assert axes.get_title(loc="left") == "mean ± standard error"
    line = axes.lines[0]
    np.testing.assert_allclose(line.get_ydata()[2:-2], np.arange(50)[2:-2] + 1)
    marks = axes.lines[2]
    assert (list(marks.get_xdata()), marks.get_marker()) == ([20], "x")
    for suffix in ("png", "svg", "pdf"):
        assert save_figure(figure, tmp_path / "plots" / f"curve.{suffix}").stat().st_size > 5_000
    with pytest.raises(ValueError, match=r"not 'curve.txt'"):
        save_figure(figure, tmp_path / "curve.txt")
    with pytest.raises(
        ValueError, match="ppo: no record has numbers 'none'; there are: step, return, wall_time"
    ):
        plot_runs(group_runs(runs), "none")


def test_eight_seeds_in_one_file_are_a_line_with_a_band(tmp_path):
    run = RunDir("vmapped", tmp_path)
    with MetricsLogger(run) as logger:
        for seed in range(8):
            logger.write_batch(
                {"step": range(30), "seed": seed, "return": np.full(30, float(seed))}
            )
    figure = plot_runs(group_runs([run]), "return")
    assert labels(figure) == ["vmapped (8 seeds)"]
    assert (figure.axes[0].lines[0].get_ydata() == 3.5).all()


def test_a_torn_tail_and_a_changed_schema_don_t_bend_the_curve(tmp_path):
    run = make_run(tmp_path, "ppo", [0.0, 1.0, 2.0])
    with MetricsLogger(run) as logger:
        logger.write({"step": 3, "note": "now with entropy", "entropy": 0.5})
        logger.write({"step": 4, "return": 4, "entropy": 0.5})
    with run.log_path().open("ab") as file:
        file.write(b'{"step":5,"return":1')
    (line,) = plot_runs(group_runs([run]), "return").axes[0].lines
    assert list(line.get_xdata()) == [0, 1, 2, 4]
    assert list(line.get_ydata()) == [0, 1, 2, 4]


def test_a_file_that_is_sampled_is_said_to_be(tmp_path):
    run = make_run(tmp_path, "ppo", np.arange(40_000.0))
    figure = plot_runs(group_runs([run]), "return", most_bytes=200_000)
    assert "a sample: " in figure.axes[0].get_title(loc="left")
    x, y = figure.axes[0].lines[0].get_data()
    assert (x == y).all()
    assert (x[0], x[-1]) == (0, 39_999)
    assert title(plot_runs(group_runs([run]), "return")) == "ppo"


def test_plotting_touches_nothing_global(tmp_path):
    make_run(tmp_path, "ppo", [1.0, 2.0])
    script = """
import sys
import vibe_rl.metrics
assert "matplotlib" not in sys.modules and "polars" not in sys.modules
from vibe_rl.plotting import group_runs, plot_runs, save_figure
from vibe_rl.run_dir import find_runs
assert "matplotlib" not in sys.modules
save_figure(plot_runs(group_runs(find_runs(".")), "return"), "x.png")
assert "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True)


@pytest.mark.parametrize("band", ["ci", "none"])
def test_a_seed_that_is_nan_is_a_gap_of_the_interquartile_mean_and_its_band(band):
    x = np.arange(5.0)
    curves = [(x, np.where(x == 2, np.nan, seed) if seed == 3 else x * seed) for seed in range(8)]
    curve = aggregate(curves, center="iqm", band=band)
    for column in (curve.y, curve.low, curve.high):
        assert np.isnan(column).tolist() == [False, False, True, False, False]


def test_the_band_may_be_the_range():
    curve = aggregate(seeds(1, 2, 6), band="range")
    assert ((curve.low == 1) & (curve.y == 3) & (curve.high == 6)).all()


def test_records_of_a_batch_which_share_a_time_are_all_drawn(tmp_path):
    run = RunDir("batches", tmp_path)
    with MetricsLogger(run) as logger:
        for nth in range(3):
            logger.write_batch({"wall_time": [nth] * 4, "return": [0.0, 5.0, 1.0, nth]})
    line = plot_runs(group_runs([run]), "return", x="wall_time").axes[0].lines[0]
    assert list(line.get_xdata()) == [0] * 4 + [1] * 4 + [2] * 4
    assert max(line.get_ydata()) == 5


def test_lanes_are_seeds_and_records_without_a_label_are_a_line_of_their_own(tmp_path):
    run = RunDir("vmapped", tmp_path)
    with MetricsLogger(run) as logger:
        for lane in range(4):
            values = np.full(30, float(lane))
            logger.write_batch({"step": range(30), "lane": lane, "return": values})
        logger.write({"step": 90, "return": 7.0})
    figure = plot_runs(group_runs([run]), "return")
    assert labels(figure) == ["vmapped (4 seeds)", "vmapped, without a label"]
    assert (figure.axes[0].lines[0].get_ydata() == 1.5).all()
    marker = figure.axes[0].lines[2]  # for a line of one point is none
    assert (list(marker.get_xdata()), list(marker.get_ydata())) == ([90], [7])
    assert marker.get_marker() == "."


def test_what_cannot_be_drawn_is_left_out_with_a_warning(tmp_path):
    runs = [make_run(tmp_path, "ppo", [1.0, 2.0]), make_run(tmp_path, "dqn", [1.0, 2.0])]
    runs.append(RunDir("dqn", tmp_path))  # has no record
    with pytest.warns(LeftOutWarning) as caught:
        figure = plot_runs({"ppo": runs[:1], "dqn": runs[1:], "none": runs[2:]}, "return")
    assert labels(figure) == ["ppo", "dqn"]
    assert [(str(each.message), each.message.runs) for each in caught] == [
        ("dqn: 1 of 2 runs: no record has numbers 'return'; there are: -", 1),
        ("none: no record has numbers 'return'; there are: -", 1),
    ]
    with pytest.raises(ValueError, match=r"ppo: no record has numbers 'retrun'; near it: return$"):
        plot_runs({"ppo": runs[:1]}, "retrun")
    with pytest.raises(ValueError, match="no record has numbers 'stp'; near it: step"):
        plot_runs({"ppo": runs[:1]}, "return", x="stp")


def test_a_seed_that_has_died_is_named_with_its_end(tmp_path):
    runs = [make_run(tmp_path, "ppo", np.ones(length)) for length in (100, 98, 20)]
    assert labels(plot_runs({"ppo": runs}, "return")) == ["ppo (3 seeds, one ends at 19)"]
    assert labels(plot_runs({"ppo": runs[:2]}, "return")) == ["ppo (2 seeds)"]


@pytest.mark.parametrize(
    ("values", "message"),
    [([-1.0, 0.0], "is positive"), ([math.nan] * 2, "is finite"), ([1e308, -1e308], "is finite")],
)
def test_a_logarithmic_axis_with_nothing_to_show_is_refused(tmp_path, values, message):
    run = make_run(tmp_path, "ppo", values)
    with pytest.raises(ValueError, match=f"ppo: no value of return {message}, for a logarithmic"):
        plot_runs(group_runs([run]), "return", log_y=True)


def test_a_logarithmic_axis_says_that_it_leaves_points_out(tmp_path):
    run = make_run(tmp_path, "ppo", [1.0, 0.0, 10.0])
    figure = plot_runs(group_runs([run]), "return", log_y=True)
    assert title(figure) == "ppo; what isn't positive is left out"
    save_figure(figure, tmp_path / "log.png")


def test_ticks_are_no_milliseconds_and_tell_steps_apart(tmp_path):
    def ticks(places, x="step"):
        run = RunDir(f"run_{len(list(tmp_path.iterdir()))}", tmp_path)
        with MetricsLogger(run) as logger:
            logger.write_batch({"return": np.ones(len(places)), x: places})
        figure = plot_runs(group_runs([run]), "return", x=x)
        figure.canvas.draw()
        return [text.get_text() for text in figure.axes[0].get_xticklabels()]

    assert not any("m" in text for text in ticks([0.001, 0.005], x="wall_time"))
    assert len(set(ticks([10**15, 10**15 + 100]))) > 3
    assert "200k" in ticks([0, 10**6])


def test_many_lines_are_named_beside_the_axes_and_pdfs_hold_text(tmp_path):
    run = make_run(tmp_path, "ppo", [1.0, 2.0])
    figure = plot_runs({f"line {nth}": [run] for nth in range(12)}, "return")
    assert figure.axes[0].get_legend() is None
    assert len(labels(figure)) == 12
    assert b"/FontFile2" in save_figure(figure, tmp_path / "a.pdf").read_bytes()


def test_small_files_are_read_whole_beside_large_ones(tmp_path):
    runs = [make_run(tmp_path, "large", np.ones(40_000)), make_run(tmp_path, "small", np.ones(50))]
    figure = plot_runs(group_runs(runs), "return", most_bytes=200_000)
    assert len(figure.axes[0].lines[1].get_xdata()) == 50
    total = sum(run.log_path().stat().st_size for run in runs)
    said = float(title(figure).split("a sample: ")[1].split(" %")[0])
    assert said == pytest.approx(100 * 200_000 / total, rel=0.2)


def test_a_file_of_its_own_has_no_config_to_be_grouped_by(tmp_path):
    (tmp_path / "alone.jsonl").touch()
    with pytest.raises(ValueError, match=r"alone.jsonl can't be grouped by lr: it has no config"):
        group_runs([tmp_path / "alone.jsonl"], "lr")
