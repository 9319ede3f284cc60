"""`emit` and `scan` over several devices: four virtual ones, in a process of their own."""

import json
import subprocess
import sys

import pytest

RUN_ON_FOUR_DEVICES = """
import json, os, pathlib
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"
import jax, jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from vibe_rl.metrics import MetricsLogger, pack, read_metrics

mesh = jax.make_mesh((2, 2), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
explicit = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Explicit,))
X = jnp.arange(4.0)
results = {}

def case(name):
    def run(make):
        path = pathlib.Path(f"{name}.jsonl")
        with MetricsLogger(path) as logger:
            function, argument = make(logger)
            jax.block_until_ready(function(argument))
        results[name] = [
            {k: v for k, v in record.items() if k != "wall_time"} for record in read_metrics(path)
        ]
    return run

def sharded(logger, **settings):
    def f(x):
        total = jax.lax.psum(x.sum(), "data")
        logger.emit({"same": total})
        logger.emit({"part": x.sum(), "same": total})
        return x * 2
    return jax.shard_map(f, mesh=mesh, in_specs=P("data"), out_specs=P("data"), **settings)

@case("shard_map")
def _(logger):
    return jax.jit(sharded(logger)), X

@case("grad of checkpoint of shard_map")
def _(logger):
    return jax.jit(jax.grad(lambda x: jax.checkpoint(sharded(logger))(x).sum())), X

@case("vmap of shard_map")
def _(logger):
    return jax.jit(jax.vmap(sharded(logger))), jnp.stack([X, X])

@case("shard_map over one axis")
def _(logger):
    return jax.jit(sharded(logger, axis_names={"data"})), X

@case("shard_map unchecked")
def _(logger):
    return jax.jit(sharded(logger, check_vma=False)), X

@case("shard_map with where")
def _(logger):
    def f(x):
        part = jax.lax.axis_index("data")
        logger.emit({"part": part}, where=part == 1)
        return x
    return jax.jit(jax.shard_map(f, mesh=mesh, in_specs=P("data"), out_specs=P("data"))), X

@case("scan in shard_map")
def _(logger):
    def f(x):
        def body(carry, _):
            return carry + x.sum(), {"part": carry, "same": jax.lax.psum(carry, "data")}
        return logger.scan(body, x.sum(), length=3, every=2)[0][None]
    return jax.jit(jax.shard_map(f, mesh=mesh, in_specs=P("data"), out_specs=P("data"))), X

@case("pmap")
def _(logger):
    return jax.pmap(lambda x: (logger.emit({"x": x}), x)[1], axis_name="device"), X

@case("pmap without a name")
def _(logger):
    return jax.pmap(lambda x: (logger.emit({"x": x}, lane="seed"), x)[1]), X

@case("scan in vmap in pmap without a name")
def _(logger):
    def f(x):
        return logger.scan(lambda c, _: (c + 1, {"c": c}), x, length=3, every=2, lane="seed")[0]
    return jax.pmap(jax.vmap(f)), X.reshape(2, 2)

@case("jit of sharded arrays")
def _(logger):
    def f(x):
        logger.emit({"sum": x.sum(), "all": x})
        return x
    return jax.jit(f), jax.device_put(X, NamedSharding(mesh, P("data")))

@case("scan in jit of vmap of sharded arrays")
def _(logger):
    def f(x):
        return logger.scan(lambda c, _: (c + 1, {"c": c}), x, length=3, every=2)[0]
    return jax.jit(jax.vmap(f)), jax.device_put(X, NamedSharding(mesh, P(("data", "model"))))

with jax.set_mesh(explicit):
    @case("explicit sharding")
    def _(logger):
        def f(x):
            logger.emit({"all": x, "sum": x.sum(), "one": 1}, where=x.sum() > 0)
            jax.vmap(lambda x: logger.emit({"x": x}))(x)
            return x
        return jax.jit(f), jax.device_put(X, NamedSharding(explicit, P("data")))

packed = jax.jit(lambda x: pack({"sum": x.sum(), "all": x}))(
    jax.device_put(X, NamedSharding(mesh, P("data")))
)
results["pack"] = [{k: v.tolist() for k, v in packed.unpack().items()}]
print(json.dumps(results))
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory):

    process = subprocess.run(
        [sys.executable, "-c", RUN_ON_FOUR_DEVICES],
        cwd=tmp_path_factory.mktemp("sharded"),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout)


def parts(*labels):
    return [{**label, "part": 1.0 + 4 * label["data"], "same": 6.0} for label in labels]


EXPECTED = {
    "shard_map": [{"same": 6.0}, *parts({"data": 0}, {"data": 1})],
    "grad of checkpoint of shard_map": [{"same": 6.0}, *parts({"data": 0}, {"data": 1})],
    "vmap of shard_map": [
        record
        for lane in (0, 1)
        for record in (
            {"same": 6.0, "lane": lane},
            *parts({"data": 0, "lane": lane}, {"data": 1, "lane": lane}),
        )
    ],
    "shard_map over one axis": [{"same": 6.0}, *parts({"data": 0}, {"data": 1})],
    # With check_vma=False, JAX doesn't know what is the same everywhere: a stated limit.
    "shard_map unchecked": [
        record
        for data in (0, 1)
        for model in (0, 1)
        for record in (
            {"data": data, "model": model, "same": 6.0},
            *parts({"data": data, "model": model}),
        )
    ],
    "shard_map with where": [{"data": 1, "part": 1}],
    "scan in shard_map": [
        {
            "data": data,
            "step": step,
            "part": (1.0 + 4 * data) * (step + 1),
            "same": 6.0 * (step + 1),
        }
        for data in (0, 1)
        for step in range(3)
    ],
    "pmap": [{"device": i, "x": float(i)} for i in range(4)],
    "pmap without a name": [{"seed": i, "x": float(i)} for i in range(4)],
    "scan in vmap in pmap without a name": [
        {"seed": [device, lane], "step": step, "c": float(2 * device + lane + step)}
        for device in range(2)
        for lane in range(2)
        for step in range(3)
    ],
    "jit of sharded arrays": [{"all": [0.0, 1.0, 2.0, 3.0], "sum": 6.0}],
    "scan in jit of vmap of sharded arrays": [
        {"lane": lane, "step": step, "c": float(lane + step)}
        for lane in range(4)
        for step in range(3)
    ],
    "explicit sharding": [
        {"all": [0.0, 1.0, 2.0, 3.0], "one": 1, "sum": 6.0},
        *({"lane": lane, "x": float(lane)} for lane in range(4)),
    ],
    "pack": [{"all": [0.0, 1.0, 2.0, 3.0], "sum": 6.0}],
}


@pytest.mark.parametrize("name", EXPECTED)
def test_every_record_is_logged_once_and_labelled_under(results, name):
    def in_any_order(records):
        return sorted(records, key=lambda record: str(sorted(record.items())))

    assert in_any_order(results[name]) == in_any_order(EXPECTED[name])
