"""Data-parallel training by several JAX processes, logged once.

    python multi_process.py [--processes 2] [--steps 200]

Starts the processes of a job on this machine, joined over loopback, as a cluster's launcher would
on many. Each calls the same code: the directory is the same on every process, and process 0 logs.
"""

import argparse
import os
import socket
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vibe_rl.metrics import MetricsLogger
from vibe_rl.run_dir import RunDir


def train(steps: int) -> None:
    """What each process runs: fit a line, the batch spread over all devices."""
    mesh = Mesh(np.array(jax.devices()), ("batch",))
    spread = NamedSharding(mesh, PartitionSpec("batch"))

    @jax.jit
    def train_step(weight: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        loss, grad = jax.value_and_grad(lambda w: jnp.mean((w * x - 3.0 * x) ** 2))(weight)
        return weight - 0.1 * grad, loss

    weight = jnp.zeros(())
    with MetricsLogger(RunDir("data_parallel")) as logger:
        for step in range(steps):
            batch = np.random.default_rng(step).normal(size=(64,)).astype(np.float32)
            x = jax.make_array_from_callback(batch.shape, spread, lambda at, b=batch: b[at])
            weight, loss = train_step(weight, x)
            # The loss is the same on every device, so that process 0 can read it.
            logger.write({"step": step, "loss": loss, "processes": jax.process_count()})


def launch(processes: int, steps: int) -> int:
    """Start the job on this machine; gives the first exit status that isn't 0."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}  # one device each
    job = [
        subprocess.Popen(
            [sys.executable, __file__, f"--steps={steps}", f"--join={address},{processes},{index}"],
            env=environment,
        )
        for index in range(processes)
    ]
    return max(process.wait() for process in job)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--join", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.join is None:
        sys.exit(launch(args.processes, args.steps))
    address, count, index = args.join.split(",")
    jax.distributed.initialize(address, num_processes=int(count), process_id=int(index))
    train(args.steps)
