"""`python -m benchmarks`: what logging costs, beside the alternatives.

    python -m benchmarks                             # all of them, about half an hour
    python -m benchmarks write loop --peers wandb,tensorboardX
    python -m benchmarks backends                    # not among all of them: a part of loop
    python -m benchmarks --json results.json --plot results.svg
    python -m benchmarks --from-json results.json --docs    # docs/benchmarks.md and its pictures

Each benchmark runs in a process of its own, so that no other's threads are beside it and one that
fails leaves the others alone.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

try:
    from benchmarks import peers, plots, tables, timing  # noqa: F401 - timing, for what it needs
    from benchmarks.results import Report, merged, new_report
except ModuleNotFoundError as error:
    sys.exit(f"python -m benchmarks needs {error.name}: pip install -e '.[bench]'")

# By name, the module with its `run(quick, peers)`.
BENCHMARKS = {
    "write": "write",
    "loop": "loop",
    "convoy": "convoy",
    "stalls": "stalls",
    "throughput": "throughput",
    "jit": "jit",
    "stall": "stall",
    "read": "read",
    "growth": "growth",
    "import": "imports",
    "backends": "backends",
}
# What another one measures too: run only when named.
PARTS = ("backends",)
# Those that compare with few peers, or with none: importing the others starts threads.
FEW_PEERS = {
    "jit": (),
    "stall": (),
    "read": (),
    "growth": (),
    "backends": ("jsonl", "wandb", "tensorboardX"),
}
LIMIT_S = 900


def main(argv: Sequence[str] | None = None) -> None:
    parser = _parser()
    arguments = parser.parse_args(argv)
    if unknown := set(arguments.names) - set(BENCHMARKS):
        parser.error(f"no benchmark {min(unknown)!r}; there are {', '.join(BENCHMARKS)}")
    if arguments.from_json:
        report = Report.load(arguments.from_json)
    elif len(arguments.names) == 1:
        report = _run_here(arguments.names[0], arguments.peers, quick=arguments.quick)
    else:
        report = _run_each(arguments)
    if arguments.from_json or len(arguments.names) != 1:
        tables.show(report)
    if arguments.json:
        report.save(arguments.json)
    if arguments.plot:
        plots.draw(report, arguments.plot)
    if arguments.docs:
        tables.write_docs(report)
        plots.write_docs(report)
    sys.exit(1 if report.failed else 0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure what logging costs, beside the alternatives.",
    )
    parser.add_argument("names", nargs="*", metavar="name", help=f"of {', '.join(BENCHMARKS)}")
    parser.add_argument("--peers", type=_names, help="the alternatives to measure, by comma")
    parser.add_argument("--quick", action="store_true", help="see that it works; measure nothing")
    parser.add_argument("--json", type=_path, metavar="FILE", help="save the results there")
    parser.add_argument("--plot", type=_path, metavar="FILE", help="draw them there, SVG or PNG")
    parser.add_argument("--docs", action="store_true", help="put them in docs/benchmarks.md")
    parser.add_argument(
        "--from-json", type=_path, metavar="FILE", help="measure nothing: show what was saved"
    )
    return parser


def _names(text: str) -> list[str]:
    names = [name for name in text.split(",") if name]
    for name in names:
        try:
            peers.peer_named(name)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
    return names


def _path(text: str) -> Path:
    return Path(text).absolute()  # for benchmarks run in a directory of their own


def _run_here(name: str, peer_names: list[str] | None, *, quick: bool) -> Report:
    """Run one benchmark in this process, and show what it gave."""
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory,
        contextlib.chdir(directory),
    ):
        # Some of the libraries leave files wherever they are.
        os.environ.update(TRACKIO_DIR=f"{directory}/trackio", WANDB_SILENT="true")
        if name in FEW_PEERS:
            few = FEW_PEERS[name]
            peer_names = [peer for peer in few if peer_names is None or peer in peer_names]
        found, absent = peers.available(peer_names)
        module = importlib.import_module(f"benchmarks.{BENCHMARKS[name]}")
        report = new_report(peers.versions(found), absent)
        gc.collect()
        gc.freeze()  # or every collection would go through what the peers have imported
        start = time.monotonic()
        report.results[name] = module.run(quick, found)
        report.seconds[name] = round(time.monotonic() - start, 1)
        tables.show(report)
    return report


def _run_each(arguments: argparse.Namespace) -> Report:
    """Run each benchmark in a process of its own, and put together what they gave."""
    parts, failed = [], {}
    with tempfile.TemporaryDirectory() as directory:
        for name in arguments.names or [name for name in BENCHMARKS if name not in PARTS]:
            saved = Path(directory) / f"{name}.json"
            command = [sys.executable, "-m", "benchmarks", name, "--json", str(saved)]
            command += ["--quick"] * arguments.quick
            if arguments.peers is not None:
                command += ["--peers", ",".join(arguments.peers)]
            print(f"== {name}", flush=True)
            try:
                subprocess.run(command, check=True, timeout=LIMIT_S)
            except subprocess.SubprocessError as error:
                failed[name] = str(error).replace(f"{command}", name)
            else:
                parts.append(Report.load(saved))
    if not parts:
        raise SystemExit(f"every benchmark failed: {failed}")
    return merged(parts, failed)


if __name__ == "__main__":
    main()
