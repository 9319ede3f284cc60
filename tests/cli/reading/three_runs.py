"""The runs that are read in these tests, and what a command prints of them."""

from vibe_rl.cli import main

FINISHED, CRASHED, RUNNING = "ppo_20260101_120000", "ppo_20260101_130000", "dqn_20260101_140000"
RECORDS = [
    {"step": 100 * i, "episode_return": float(i), "loss": 1.0 / i, "wall_time": i / 2}
    for i in range(1, 21)
]


def lines(capsys, *args):
    assert main([*args]) == 0
    return capsys.readouterr().out.splitlines()
