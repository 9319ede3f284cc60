"""What a process of its own may take back of its low priority, for root and for a user."""

import os
import shutil
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="of Linux")
AS_NOBODY = ["setpriv", "--reuid", "65534", "--clear-groups"]

SCRIPT = """
import os
from vibe_rl.metrics.isolation.priority import stop_yielding, yield_to_others

def show():
    try:
        with open("/proc/self/autogroup") as file:
            group = file.read().split()[-1:]
    except OSError:
        group = []
    print(os.sched_getscheduler(0) == os.SCHED_IDLE, os.nice(0), *group)

yield_to_others(0)
show()
stop_yielding(0)
show()
"""


def priorities(*prefix):
    """Whether it is idle, its nice level and its group's, if any: with low priority, and after."""
    command = [*prefix, sys.executable, "-c", SCRIPT]
    run = subprocess.run(
        command, check=True, capture_output=True, text=True, start_new_session=True, cwd="/"
    )
    return [line.split() for line in run.stdout.splitlines()]


def test_it_is_low_and_comes_back_as_far_as_a_user_may():
    low, back = priorities()
    assert low[:2] == ["True", "19"]
    assert set(low[2:]) <= {"19", "0"}
    if os.getuid() == 0:
        assert back[:2] == ["False", "0"]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be somebody else")
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="setpriv is not installed")
def test_a_user_s_group_comes_back_though_its_processes_may_not():
    can_read = [*AS_NOBODY, sys.executable, "-c", "import vibe_rl.metrics.isolation.priority"]
    if subprocess.run(can_read, check=False, cwd="/", capture_output=True).returncode:
        pytest.skip("the installation is not readable by others")
    low, back = priorities(*AS_NOBODY)
    assert low[:2] == ["True", "19"]
    if low[2:] == ["19"]:
        # The group's weight is what counts beside the trainer's.
        assert back[2] == "0"
