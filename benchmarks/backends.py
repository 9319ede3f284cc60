"""What each backend costs a training loop of 150 µs a step: the part of `loop` about backends.

    python -m benchmarks backends

Ours on a thread and in a process of their own, and what one would call in the loop itself:
`wandb.log`, tensorboardX's `add_scalar`, and a file that gets a line at each step.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from benchmarks import loop
from benchmarks.peers import Peer
from benchmarks.results import Result, Spread

FILE_ONLY = "vibe_rl, file only"
CASES = (
    loop.NOTHING,
    loop.READING,
    loop.BESIDE,
    FILE_ONLY,
    "vibe_rl, TensorBoard on a thread",
    "vibe_rl, TensorBoard isolated",
    "vibe_rl, W&B on a thread",
    "vibe_rl, W&B isolated",
)


def run(quick: bool, peers: Sequence[Peer]) -> list[Result]:
    """Measure as `loop` does, and compare the slowest steps with those of the file alone."""
    ours = {name: loop.OURS[name] for name in CASES}
    if quick:  # see that it works: that W&B does, `loop` shows
        ours = {name: each for name, each in ours.items() if "W&B" not in name}
    results = loop.at_length("150 µs", ours, peers, quick=quick, rounds=16)
    tails = {result.case: result.figures["p99.9, µs"].median for result in results}
    for result in results:
        if result.case in CASES:
            ratio = tails[result.case] / tails[FILE_ONLY]
            result.figures["p99.9, x file only"] = Spread.of(ratio)
    return results


if __name__ == "__main__":
    from benchmarks.__main__ import main

    main(["backends", *sys.argv[1:]])
