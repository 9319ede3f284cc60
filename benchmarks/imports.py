"""What it costs to begin: to import the logger, to make and close one, to ask the command for help.

Each in a fresh process, over a process that does nothing, in turn.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.peers import Peer
from benchmarks.results import Result, Spread

TABLE = "a fresh process, over one that does nothing"
NOTHING = "Python itself"
LOGGER = "from vibe_rl.metrics import MetricsLogger; MetricsLogger('metrics.jsonl').close()"
HELP = "import sys; sys.argv[1:] = ['--help']; from vibe_rl.cli import main; main()"
# A process's own pages at its end. (What `wait4` tells includes the process that it was forked of.)
PAGES = "/proc/self/statm"
TELL = f"import atexit; atexit.register(lambda: print('\\n', open('{PAGES}').read()))"


def run(quick: bool, peers: Sequence[Peer]) -> list[Result]:
    """Measure ours and the peers, five times each."""
    programs = {
        NOTHING: "pass",
        "import numpy": "import numpy",
        "import jax": "import jax",
        "import vibe_rl.metrics": "import vibe_rl.metrics",
        "vibe_rl, make and close a logger": LOGGER,
        "vibe-rl --help": HELP,
        **{f"import {peer.module}": f"import {peer.module}" for peer in peers},
    }
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in programs}
    for turn in range(1, 2) if quick else range(6):  # the first, 0, fills the disk's cache
        for name in programs if turn % 2 else reversed(programs):
            figures = _process(programs[name])
            if turn:
                taken[name].append(figures)
    results = []
    for name, each in taken.items():
        over = np.array(each) - np.median(taken[NOTHING], axis=0) * (name != NOTHING)
        figures = {"ms": Spread.of(over[:, 0]), "MB": Spread.of(over[:, 1])}
        results.append(Result(TABLE, name, figures))
    return results


def _process(program: str) -> tuple[float, float]:
    """The milliseconds that it takes in a fresh Python, and how many MB that has at the end."""
    tells = Path(PAGES).exists()
    command = [sys.executable, "-c", f"{TELL}\n{program}" if tells else program]
    start = time.perf_counter()
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    taken_ms = (time.perf_counter() - start) * 1e3
    pages = int(output.split()[-6]) if tells else 0  # of seven numbers, the second
    return taken_ms, pages * os.sysconf("SC_PAGE_SIZE") / 1e6
