"""What a feed that drains a backlog costs the training loop beside it.

A jitted step of about 150 µs, whose five scalars are read with `np.asarray`; beside it a backend
gets a file of 200,000 records, from a feed on a thread or in a process of its own. Blocks with the
feed and without take turns; each figure is over that of the block without in the same round. A feed
whose backlog is drained begins again.

    python benchmarks/drain.py [--records 200000] [--rounds 15] [--steps 3000] [--quick]
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np

from benchmarks.backends import jitted_step, timed_block
from benchmarks.timing import in_turn, machine, median_and_quartiles, print_table
from vibe_rl.metrics import MetricsLogger, TensorBoardBackend, isolated
from vibe_rl.metrics.feed.feed import Feed
from vibe_rl.metrics.isolation.isolated import IsolatedBackend
from vibe_rl.metrics.lines import Position

START = Position(0, 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--records", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=3000, help="steps of a block")
    parser.add_argument("--quick", action="store_true", help="see that it works; measure nothing")
    arguments = parser.parse_args()
    rounds, steps = (2, 50) if arguments.quick else (arguments.rounds, arguments.steps)
    records = 2_000 if arguments.quick else arguments.records

    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "metrics.jsonl"
        write_backlog(path, records)
        feeds = Feeds(path)
        step = jitted_step()
        starts = {
            "no feed": None,
            "a feed on a thread": feeds.on_a_thread,
            "no feed, again": None,
            "a feed in a process of its own": feeds.in_a_process,
        }
        times = in_turn(
            {name: partial(block, step, steps, start) for name, start in starts.items()}, rounds
        )
        paced, unpaced = seconds_to_drain(feeds.on_a_thread), seconds_to_drain(feeds.unpaced)
    print(f"{machine()}\n{rounds} rounds of {steps} steps; median (quartiles) of the rounds\n")
    report(times)
    print(f"\n{records} records drain in {paced:.1f} s with pauses, {unpaced:.1f} s without")


def write_backlog(path: Path, records: int) -> None:
    with MetricsLogger(path) as logger:
        values = np.random.default_rng(0).random(records, np.float32)
        for at in range(0, records, 10_000):
            rows = slice(at, at + 10_000)
            steps = np.arange(records)[rows]
            logger.write_batch({"step": steps, **dict.fromkeys("abcde", values[rows])})
            logger.flush()


class Feeds:
    """Starts feeds of a TensorBoard backend, each at the start of the file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._runs = count()

    def _directory(self) -> Path:
        return self._path.with_name(f"tensorboard{next(self._runs)}")

    def on_a_thread(self, *, paced: bool = True) -> Feed:
        """As a logger does it."""
        backend = TensorBoardBackend(self._directory())
        return Feed(backend, self._path, START, name="TensorBoard", paced=paced)

    def unpaced(self) -> Feed:
        """As fast as it goes."""
        return self.on_a_thread(paced=False)

    def in_a_process(self) -> IsolatedBackend:
        """Where it needs no GIL of ours."""
        backend = isolated(TensorBoardBackend, self._directory())
        backend.follow(self._path, START, name="TensorBoard", nth=0)
        return backend


def block(step: Callable, steps: int, start: Callable | None) -> np.ndarray:
    feeds = [start()] if start else []

    def read(_: int, metrics: dict) -> None:
        for value in metrics.values():
            np.asarray(value)
        if feeds and not feeds[0].stats.behind:
            end(feeds.pop())
            feeds.append(start())

    times = timed_block(step, (read, lambda: None), steps)
    for feed in feeds:
        end(feed)
    return times


def report(times: dict[str, np.ndarray]) -> None:
    """Print a line for each case: its mean, median and tail over those of the case without."""
    means = {name: each.mean(axis=1) for name, each in times.items()}
    middles = {name: np.median(each, axis=1) for name, each in times.items()}
    tails = {name: np.quantile(each, 0.999, axis=1) for name, each in times.items()}
    print_table(
        ["beside", "µs a step", "mean", "p50", "p99.9"],
        [
            [
                name,
                f"{np.median(means[name]):.0f}",
                *(
                    median_and_quartiles(each[name] / each["no feed"])
                    for each in (means, middles, tails)
                ),
            ]
            for name in times
        ],
    )


def end(feed: Feed | IsolatedBackend) -> None:
    """Close a feed, so that it isn't at work beside the next block."""
    if isinstance(feed, Feed):
        feed.abandon()  # a process of its own delivers the rest all the same
    feed.wait(feed.ask(close=True), None)


def seconds_to_drain(start: Callable[[], Feed]) -> float:
    begin = time.monotonic()
    feed = start()
    while feed.stats.behind:
        time.sleep(0.05)
    seconds = time.monotonic() - begin
    end(feed)
    return seconds


if __name__ == "__main__":
    main()
