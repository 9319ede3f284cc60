"""Everything at once, for long, with faults at random; at the end, each record is accounted for.

    python benchmarks/soak.py [--minutes 20] [--seed 0] [--quick]

A trainer logs from four threads to one file and five backends: TensorBoard and one of our own, each
on a thread and in a process of its own, and offline W&B in a process of its own. It forks children
that log too. Other processes append to the same file with loggers of their own. Meanwhile they are
killed, interrupted and stopped at random, so are the backends' processes, and the disk stalls. The
exit status is 1 if a record is missing that should be there, if one is there twice, or if
the trainer's memory or its open files grow.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from results import machine
from soak_account import Account, Recorder, recorded, tensorboard_points, wandb_rows

from vibe_rl.metrics import (
    MetricsLogger,
    TensorBoardBackend,
    WandbBackend,
    isolated,
    iter_metrics,
)

THREADS = 4  # of the trainer; they are the writers 0 to 3
WRITERS = 3  # processes beside it
FORKED = 10_000  # from here on, writers are the trainer's forked children
FORKED_RECORDS = 200
# What a killed process may lose: the most, and what 19 of 20 keep to. The promise is 0.1 s, but a
# machine on which all this goes on keeps the writer's thread waiting.
MOST_LOST_S = 1.0
# A trend of less than that can't be told from noise in twenty minutes.
FLAT_MB = FLAT_FILES = 0.5  # a minute


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="see that it works; show nothing")
    parser.add_argument("--role", nargs=2, help=argparse.SUPPRESS)  # of the processes it starts
    arguments = parser.parse_args()
    if arguments.role:
        kind, number = arguments.role
        train(random.Random(number)) if kind == "trainer" else write(int(number))
        return
    minutes = 0.1 if arguments.quick else arguments.minutes
    print(f"{machine()}\n{minutes:g} minutes, seed {arguments.seed}\n", flush=True)
    with tempfile.TemporaryDirectory() as directory:
        os.chdir(directory)
        soak = Soak(arguments.seed)
        soak.run(60 * minutes)
        violations = [*account(soak.ends), *check_backends(), *soak.check_trends()]
        os.chdir("/")
    for violation in violations:
        print(f"VIOLATION: {violation}")
    print("all records accounted for" if not violations else f"{len(violations)} violations")
    sys.exit(1 if violations else 0)


# -- the processes that log ---------------------------------------------------------------------


def train(rng: random.Random) -> None:
    """Log to all backends from several threads, and fork now and then, until SIGTERM."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    backends: list[Any] = [
        TensorBoardBackend("tensorboard"),
        isolated(TensorBoardBackend, "tensorboard-isolated"),
        isolated(WandbBackend, run_dir=".", mode="offline"),
        Recorder("recorded"),
        isolated(Recorder, "recorded-isolated"),
    ]
    with MetricsLogger("metrics.jsonl", backends) as logger:
        make_stallable(logger)
        threads = [
            threading.Thread(target=keep_writing, args=(logger, number, stop))
            for number in range(THREADS)
        ]
        for thread in threads:
            thread.start()
        forked = FORKED
        while not stop.wait(rng.uniform(1, 10)):
            fork(logger, forked)
            forked += 1
            logger.flush(timeout=rng.uniform(0, 5))
        for thread in threads:
            thread.join()
    print(logger.stats)
    Path("high_water").write_text(f"{logger.stats.high_water}")


def fork(logger: MetricsLogger, number: int) -> None:
    """Fork a child that logs, and then ends in one way or another."""
    with warnings.catch_warnings(action="ignore"):  # of Python 3.12, about forks beside threads
        pid = os.fork()
    if pid:
        os.waitpid(pid, 0)
        return
    log = Account(number)
    for _ in range(FORKED_RECORDS):
        log.write(logger)
    if number % 2:
        os.kill(os.getpid(), signal.SIGKILL)
    os._exit(0)


def write(number: int) -> None:
    """Log to the common file until a signal comes."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    with contextlib.suppress(KeyboardInterrupt), MetricsLogger("metrics.jsonl") as logger:
        make_stallable(logger)
        keep_writing(logger, number, threading.Event())


def make_stallable(logger: MetricsLogger) -> None:
    """Have its appends take as long as there is a file `stalled`.

    What else we could do to the disk delays no append: that ends in the system's cache.
    """
    append = logger._writer._append

    def append_once_it_may(lines: memoryview) -> int:
        while Path("stalled").exists():
            time.sleep(0.01)
        return append(lines)

    logger._writer._append = append_once_it_may


def keep_writing(logger: MetricsLogger, number: int, stop: threading.Event) -> None:
    rng = random.Random(number)
    log = Account(number)
    while not stop.wait(rng.uniform(0, 0.12)):
        for _ in range(rng.choice([*[1] * 19, 50])):
            log.write(logger)


# -- the faults ---------------------------------------------------------------------------------


class Soak:
    """Starts the processes, and does them harm.

    Attributes:
        ends: By writer, when it was killed, on `time.monotonic()`'s clock; None if it wasn't.
    """

    def __init__(self, seed: int) -> None:
        self.ends: dict[int, float | None] = dict.fromkeys(range(THREADS))
        self._rng = random.Random(seed)
        self._faults: Counter[str] = Counter()
        self._samples: list[tuple[float, float, int]] = []
        self._trainer = self._start("trainer", seed)
        while not Path("accepted.0").exists():
            if self._trainer.poll() is not None:
                self._fail()
            time.sleep(0.1)
        self._writers: dict[int, subprocess.Popen] = {}
        self._next = THREADS

    def run(self, seconds: float) -> None:
        """Let it all go on for so long, and then end it in an orderly way."""
        faults = {
            self.end_writer: 8,
            self.stop_writer: 4,
            self.stop_trainer: 2,
            self.stop_backend: 2,
            self.kill_backend: 2,
            self.stall_disk: 2,
        }
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            while len(self._writers) < WRITERS:
                self._writers[self._next] = self._start("writer", self._next)
                self._next += 1
            (fault,) = self._rng.choices([*faults], [*faults.values()])
            fault()
            self._faults[fault.__name__] += 1
            for _ in range(self._rng.randrange(1, 4)):
                time.sleep(1)
                self._sample()
            if self._trainer.poll() is not None:
                break
        for number in list(self._writers):
            self._end(number, signal.SIGINT)
        self._trainer.terminate()
        if self._trainer.wait(timeout=1_800) != 0:
            self._fail()
        self.ends.update(
            dict.fromkeys(
                int(path.name.removeprefix("accepted."))
                for path in Path().glob("accepted.*")
                if int(path.name.removeprefix("accepted.")) >= FORKED
            )
        )
        print(f"\n{dict(self._faults)}\n")

    def end_writer(self) -> None:
        """Kill a process that logs, or interrupt it."""
        number = self._rng.choice(list(self._writers))
        self._end(number, self._rng.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT]))

    def stop_writer(self) -> None:
        """Stop one for a while, wherever it is; the others share the file with it."""
        self._stop(self._rng.choice(list(self._writers.values())).pid)

    def stop_trainer(self) -> None:
        """Stop the trainer, but not its backends' processes."""
        self._stop(self._trainer.pid)

    def stop_backend(self) -> None:
        """Stop a backend's process."""
        if backends := self._backends():
            self._stop(self._rng.choice(backends))

    def kill_backend(self) -> None:
        """Kill a backend's process."""
        if backends := self._backends():
            os.kill(self._rng.choice(backends), signal.SIGKILL)

    def stall_disk(self) -> None:
        """Have the disk take nothing for a while.

        It takes what has waited at once when this ends, and the next fault is a second away at
        least: so whoever is killed then may lose no more than at any other time.
        """
        Path("stalled").touch()
        time.sleep(self._rng.uniform(0.2, 2))
        Path("stalled").unlink()

    def check_trends(self) -> list[str]:
        """Print how memory and open files went; gives what is wrong with that."""
        settled = self._samples[len(self._samples) // 4 :]
        minutes, megabytes, files = map(np.asarray, zip(*settled, strict=True))
        (memory, _), (opened, _) = (
            np.polyfit(minutes, each.astype(float), 1) for each in (megabytes, files)
        )
        print_table(
            ["the trainer's", "first", "last", "a minute"],
            [
                ["memory, MB", *(f"{megabytes[at]:.1f}" for at in (0, -1)), f"{memory:+.3f}"],
                ["open files", *(f"{files[at]}" for at in (0, -1)), f"{opened:+.3f}"],
            ],
        )
        print()
        if minutes[-1] - minutes[0] < 5:
            print("too short to say whether they grow\n")
            return []
        grown = {"memory": memory > FLAT_MB, "open files": opened > FLAT_FILES}
        return [f"the trainer's {name} grow" for name, grows in grown.items() if grows]

    def _fail(self) -> NoReturn:
        raise SystemExit(f"the trainer has failed:\n{Path('trainer.log').read_text()}")

    def _start(self, kind: str, number: int) -> subprocess.Popen:
        command = [sys.executable, __file__, "--role", kind, str(number)]
        with Path(f"{kind}.log").open("a") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)

    def _end(self, number: int, how: signal.Signals) -> None:
        process = self._writers.pop(number)
        accepted = Path(f"accepted.{number}")
        while not (accepted.exists() and accepted.stat().st_size):  # it has only begun
            time.sleep(0.1)
        killed = time.monotonic()
        process.send_signal(how)
        code = process.wait(timeout=300)
        self.ends[number] = None if how == signal.SIGINT else killed
        if code not in (0, -how):
            raise SystemExit(f"a writer has failed:\n{Path('writer.log').read_text()}")

    def _stop(self, pid: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
            time.sleep(self._rng.uniform(0.1, 2))
            os.kill(pid, signal.SIGCONT)

    def _backends(self) -> list[int]:
        children = Path(f"/proc/{self._trainer.pid}/task").glob("*/children")
        pids = [int(pid) for each in children for pid in each.read_text().split()]
        return [pid for pid in pids if b"child" in Path(f"/proc/{pid}/cmdline").read_bytes()]

    def _sample(self) -> None:
        process = Path(f"/proc/{self._trainer.pid}")
        status = (process / "status").read_text()
        kilobytes = int(status.partition("RssAnon:")[2].split()[0])
        opened = len(list((process / "fd").iterdir()))
        self._samples.append((time.monotonic() / 60, kilobytes / 1_024, opened))


# -- the account --------------------------------------------------------------------------------


def account(ends: dict[int, float | None]) -> list[str]:
    """Compare what was accepted with what is in the file; gives what is wrong."""
    got: defaultdict[int, list[int]] = defaultdict(list)
    with warnings.catch_warnings(record=True) as torn:
        warnings.simplefilter("always")
        for record in iter_metrics("metrics.jsonl"):
            got[record["writer"]].append(record["i"])
    violations, ages, total = [], [], 0
    for writer, killed in ends.items():
        times = Account.read(writer)
        count = len(got[writer])
        total += len(times)
        if got[writer] != list(range(count)):
            violations.append(f"writer {writer}: records are missing in between, or there twice")
        missing = times[count:]
        if killed is None and len(missing):
            violations.append(f"writer {writer} lacks its last {len(missing)} records")
        if killed is not None:
            ages.append(float(killed - missing[0]) if len(missing) else 0.0)
    if set(got) - set(ends):
        violations.append("there are records that nobody has written")
    late = sum(age > MOST_LOST_S for age in ages)
    if late:
        violations.append(f"{late} killed writers have lost records older than {MOST_LOST_S:g} s")
    print_table(
        ["records", ""],
        [
            ["accepted", f"{total}"],
            ["in the file", f"{sum(map(len, got.values()))}"],
            ["writers", f"{len(ends)}"],
            ["of which killed", f"{len(ages)}"],
            ["age of the oldest record lost, s: median", f"{np.median(ages or [0]):.3f}"],
            ["19 of 20 below", f"{np.quantile(ages or [0], 0.95):.3f}"],
            ["most", f"{max(ages, default=0):.3f}"],
            ["lines torn by a kill", f"{len(torn)}"],
            ["most that ever waited in the trainer", Path("high_water").read_text()],
        ],
    )
    print()
    return violations


def check_backends() -> list[str]:
    """Compare what the backends have with what is in the file; gives what is wrong."""
    with warnings.catch_warnings(action="ignore"):
        records = [(record["writer"], record["i"]) for record in iter_metrics("metrics.jsonl")]
    places = {record: place for place, record in enumerate(records)}
    backends = {
        "TensorBoard": (tensorboard_points("tensorboard"), 0),
        "TensorBoard, isolated": (tensorboard_points("tensorboard-isolated"), None),
        "W&B, isolated": (wandb_rows("wandb"), None),
        "our own": (recorded("recorded"), 0),
        "our own, isolated": (recorded("recorded-isolated"), None),
    }
    rows, violations = [], []
    for name, (delivered, most_repeated) in backends.items():
        count = reached = 0
        for record in delivered:
            count += 1
            if places[record] > reached:
                violations.append(f"{name} lacks records before {record}")
                break
            reached = max(reached, places[record] + 1)
        repeated = count - reached
        if reached < len(records):
            violations.append(f"{name} lacks the last {len(records) - reached} records")
        if most_repeated is not None and repeated > most_repeated:
            violations.append(f"{name} has {repeated} records twice")
        rows.append([name, f"{reached}", f"{repeated}"])
    print_table(["backend", "delivered", "again after a kill"], rows)
    print()
    return violations


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    # Here, so that the processes that log, whose memory is looked at, don't have it.
    from rich.console import Console
    from rich.table import Table

    table = Table(*header)
    for row in rows:
        table.add_row(*row)
    Console().print(table, highlight=False)


if __name__ == "__main__":
    main()
