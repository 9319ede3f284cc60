from itertools import chain

import pytest

from vibe_rl.runner import PPOConfig
from vibe_rl.runner.schedule import plan


def config(**settings):
    return PPOConfig(num_envs=1, num_steps=10, num_minibatches=1, **settings)


def stops(stretches, what):
    return [stretch.done for stretch in stretches if getattr(stretch, what)]


def test_stretches_end_where_something_is_due_and_are_equally_long():
    run = config(total_timesteps=1200, log_interval=100, eval_interval=200, checkpoint_interval=300)
    stretches = list(plan(run, 0, stop_at_records=False))
    assert {len(stretch.step) for stretch in stretches} == {1}  # of 2 and 3
    assert stops(stretches, "evaluate") == [20, 40, 60, 80, 100, 120]
    assert stops(stretches, "save") == [30, 60, 90, 120]

    run = config(total_timesteps=1200, log_interval=100, eval_interval=200, checkpoint_interval=400)
    stretches = list(plan(run, 0, stop_at_records=False))
    assert [list(stretch.step) for stretch in stretches][:2] == [[100, 200], [300, 400]]
    assert len(list(plan(run, 0, stop_at_records=True))) == 12


def test_the_last_interval_is_shorter_and_ends_with_everything():
    run = config(total_timesteps=995, log_interval=200, eval_interval=450, checkpoint_interval=250)
    stretches = list(plan(run, 0, stop_at_records=False))
    assert [list(stretch.num_updates) for stretch in stretches] == [[20], [20], [20], [20], [20]]
    run = config(total_timesteps=950, log_interval=200, eval_interval=450, checkpoint_interval=0)
    stretches = list(plan(run, 0, stop_at_records=False))
    assert list(chain(*(stretch.num_updates for stretch in stretches))) == [20, 20, 20, 20, 15]
    assert list(chain(*(stretch.step for stretch in stretches))) == [200, 400, 600, 800, 950]
    assert stops(stretches, "evaluate") == [60, 95]  # 450 is rounded up to whole intervals
    assert stops(stretches, "save") == []


@pytest.mark.parametrize("done", [0, 20, 60, 75, 95])
def test_what_is_left_of_a_run_stops_at_the_same_steps(done):
    run = config(total_timesteps=950, log_interval=200, eval_interval=450, checkpoint_interval=200)
    whole = list(plan(run, 0, stop_at_records=False))
    left = list(plan(run, done, stop_at_records=False))
    for what in ("evaluate", "save"):
        assert stops(left, what) == [each for each in stops(whole, what) if each > done]
    assert sum(int(stretch.num_updates.sum()) for stretch in left) == 95 - done


def test_a_run_with_nothing_to_stop_for_is_still_cut_so_that_ctrl_c_is_heard():
    run = config(total_timesteps=10**9, log_interval=10, eval_interval=0, checkpoint_interval=0)
    first = next(plan(run, 0, stop_at_records=False))
    assert len(first.step) == 100
