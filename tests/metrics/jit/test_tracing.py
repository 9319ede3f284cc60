"""`emit` and `scan` inside compiled functions: every record once, right, and labelled."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vibe_rl.metrics import MetricsLogger, pack, read_metrics
from vibe_rl.metrics.jit.arrivals import Arrivals

STEPS = 7
POLICIES = jax.checkpoint_policies


@pytest.fixture
def path(tmp_path):
    return tmp_path / "metrics.jsonl"


def logged(path):
    """The records, without `wall_time`."""
    records = read_metrics(path)
    for record in records:
        assert record.pop("wall_time") >= 0
    return records


def in_any_order(records):
    return sorted(records, key=lambda record: str(sorted(record.items())))


def iteration(value, step):
    return value * 1.5 + step


def with_emit(logger, wrap=lambda f: f):
    """A run of STEPS iterations that emits a record in each."""

    def body(value, step):
        logger.emit({"step": step, "value": value})
        return iteration(value, step), None

    return lambda value: jax.lax.scan(wrap(body), value, jnp.arange(STEPS))[0]


def with_scan(logger, wrap=lambda f: f):
    """The same run, logged by scan, with a length that `every` doesn't divide."""

    def body(value, step):
        return iteration(value, step), {"value": value}

    return lambda value: logger.scan(wrap(body), value, jnp.arange(STEPS), every=3)[0]


def with_while(logger, wrap=lambda f: f):
    """The same run, in a while loop, which has no derivative in reverse."""

    def body(carry):
        step, value = carry
        logger.emit({"step": step, "value": value})
        return step + 1, iteration(value, step)

    return lambda value: jax.lax.while_loop(lambda carry: carry[0] < STEPS, body, (0, value))[1]


def expected(value, **labels):
    """What a run that starts at `value` logs."""
    records = []
    for step in range(STEPS):
        records.append({**labels, "step": step, "value": float(value)})
        value = iteration(value, step)
    return records


ONE = expected(2.0)
LANES = [record for lane in range(3) for record in expected(float(lane), lane=lane)]
NESTED = [
    record
    for outer, inner in itertools.product(range(2), range(3))
    for record in expected(float(3 * outer + inner), lane=[outer, inner])
]


def two_pullbacks(run):
    def pull_twice(value):
        _, pullback = jax.vjp(run, value)
        return pullback(1.0), pullback(2.0)

    return pull_twice


# What is done to a run, what it is called with, and what must then be logged.
AT_2 = (2.0, ONE)
AT_LANES = (jnp.arange(3.0), LANES)
FORWARD = {
    "nothing": (lambda run: run, *AT_2),
    "jit": (jax.jit, *AT_2),
    "jvp": (lambda run: lambda x: jax.jvp(run, (x,), (x,)), *AT_2),
    "jacfwd": (jax.jacfwd, *AT_2),
    "vmap": (jax.vmap, *AT_LANES),
    "vmap of jit": (lambda run: jax.vmap(jax.jit(run)), *AT_LANES),
    "vmap of jvp": (lambda run: jax.vmap(jax.jacfwd(run)), *AT_LANES),
    "nested vmap": (lambda run: jax.vmap(jax.vmap(run)), jnp.arange(6.0).reshape(2, 3), NESTED),
    "vmap of other axes": (
        lambda run: jax.jit(jax.vmap(jax.vmap(run, in_axes=0), in_axes=1)),
        jnp.arange(6.0).reshape(2, 3).T,
        NESTED,
    ),
    "a single lane": (jax.vmap, jnp.ones(1), expected(1.0, lane=0)),
    "checkpoint": (lambda run: jax.jit(jax.checkpoint(run)), *AT_2),
    "cond": (lambda run: jax.jit(lambda x: jax.lax.cond(x > 0, run, lambda x: x, x)), *AT_2),
    "cond that isn't taken": (
        lambda run: jax.jit(lambda x: jax.lax.cond(x > 0, run, lambda x: x, x)),
        -2.0,
        [],
    ),
    "map": (
        lambda run: jax.jit(lambda xs: jax.lax.map(run, xs)),
        jnp.array([2.0, 3.0]),
        ONE + expected(3.0),
    ),
    "a loop of 2": (
        lambda run: jax.jit(lambda x: jax.lax.fori_loop(0, 2, lambda _, y: run(x) + 0 * y, x)),
        2.0,
        ONE + ONE,
    ),
}
REVERSE = {
    "grad": (jax.grad, *AT_2),
    "jit of grad": (lambda run: jax.jit(jax.grad(run)), *AT_2),
    "value_and_grad": (lambda run: jax.jit(jax.value_and_grad(run)), *AT_2),
    "grad of checkpoint": (lambda run: jax.jit(jax.grad(jax.checkpoint(run))), *AT_2),
    "grad of nested checkpoint": (
        lambda run: jax.jit(jax.grad(jax.checkpoint(lambda x: jax.checkpoint(run)(x * 1.0)))),
        *AT_2,
    ),
    "grad of cond": (
        lambda run: jax.jit(jax.grad(lambda x: jax.lax.cond(x > 0, run, lambda x: x, x))),
        *AT_2,
    ),
    "hessian": (lambda run: jax.jit(jax.hessian(run)), *AT_2),
    "linearize": (lambda run: lambda x: jax.linearize(run, x)[1](x), *AT_2),
    "two pullbacks": (two_pullbacks, *AT_2),
    "vmap of grad": (lambda run: jax.jit(jax.vmap(jax.grad(run))), *AT_LANES),
    "grad of vmap": (
        lambda run: jax.jit(jax.grad(lambda xs: jax.vmap(run)(xs).sum())),
        *AT_LANES,
    ),
    "vmap of grad of checkpoint": (
        lambda run: jax.jit(jax.vmap(jax.grad(jax.checkpoint(run)))),
        *AT_LANES,
    ),
}
TRANSFORMED = [
    *((make, name) for make in (with_emit, with_scan) for name in FORWARD | REVERSE),
    *((with_while, name) for name in ("jit", "jacfwd", "nested vmap", "checkpoint")),
]


@pytest.mark.parametrize(
    ("make", "name"), TRANSFORMED, ids=[f"{make.__name__}-{name}" for make, name in TRANSFORMED]
)
def test_every_record_is_logged_once_under(path, make, name):
    transform, argument, records = (FORWARD | REVERSE)[name]
    with MetricsLogger(path) as logger:
        transform(make(logger))(argument)
    assert in_any_order(logged(path)) == in_any_order(records)


@pytest.mark.parametrize("make", [with_emit, with_scan])
@pytest.mark.parametrize("policy", ["everything_saveable", "nothing_saveable", "inner jit"])
def test_iterations_that_are_recomputed_are_not_logged_again(path, make, policy):
    if policy == "inner jit":
        wrap = lambda f: jax.checkpoint(jax.jit(f))  # noqa: E731 - as the other
    else:
        wrap = functools.partial(jax.checkpoint, policy=getattr(POLICIES, policy))
    with MetricsLogger(path) as logger:
        jax.jit(jax.grad(make(logger, wrap)))(2.0)
        jax.jit(jax.grad(wrap(make(logger, wrap))))(2.0)
    assert in_any_order(logged(path)) == in_any_order(ONE + ONE)


def f_and_its_vjp(logger):
    @jax.custom_vjp
    def f(x):
        logger.emit({"x": x})
        return x * 2

    def forward(x):
        return f(x), x

    def backward(x, g):
        logger.emit({"g": g, "x": x})
        return (g * 2,)

    f.defvjp(forward, backward)
    return f


def test_inside_custom_derivatives_what_runs_is_logged(path):
    with MetricsLogger(path) as logger:
        f = f_and_its_vjp(logger)
        jax.jit(f)(1.0)
        jax.jit(jax.grad(f))(3.0)
        jax.jit(jax.vmap(jax.grad(lambda x: f(x) * x)))(jnp.array([5.0, 6.0]))
    assert in_any_order(logged(path)) == in_any_order(
        [
            {"x": 1.0},
            {"x": 3.0},
            {"g": 1.0, "x": 3.0},
            *({"x": x, "lane": lane} for lane, x in enumerate([5.0, 6.0])),
            *({"g": x, "x": x, "lane": lane} for lane, x in enumerate([5.0, 6.0])),
        ]
    )


def test_without_jit_at_all(path):
    with jax.disable_jit(), MetricsLogger(path) as logger:
        with_emit(logger)(2.0)
        with_scan(logger)(2.0)
        jax.grad(with_emit(logger))(2.0)
        jax.vmap(with_scan(logger))(jnp.arange(3.0))
    assert in_any_order(logged(path)) == in_any_order(ONE * 3 + LANES)


def test_a_transfer_guard_refuses_nothing_that_is_not_the_users(path):
    one, three, xs = jnp.float32(2), jnp.arange(3.0), jnp.arange(STEPS)
    step, yes = jnp.int32(4), jnp.bool_(True)

    with MetricsLogger(path) as logger:

        def scan(value):
            return logger.scan(lambda v, x: (iteration(v, x), {"v": v}), value, xs, every=3)

        def emit(value):
            logger.emit({"a": value, "b": 1}, step=step, every=2, where=yes)

        def packed(value):
            return pack({"a": value, "b": 1})

        with jax.transfer_guard("disallow"):
            for function in (scan, emit, packed):
                function(one)
                jax.vmap(function)(three)
            logger.write(packed(one))
            logger.write_batch(jax.vmap(packed)(three))
    assert len(read_metrics(path)) == (1 + 3) * (STEPS + 1 + 1)


def test_a_record_that_does_not_depend_on_a_mapped_axis_is_logged_once(path):
    with MetricsLogger(path) as logger:

        def body(lane, step):
            logger.emit({"step": step})
            return lane + step, None

        jax.jit(jax.vmap(lambda lane: jax.lax.scan(body, lane, jnp.arange(2))[0]))(jnp.arange(3))
    assert logged(path) == [{"step": 0}, {"step": 1}]


def test_one_callback_brings_all_lanes_and_all_iterations(path, monkeypatch):
    arrived = []
    receive = Arrivals.receive

    def spy(self, message, *pieces):
        arrived.append(message.count(np.concatenate(pieces)))
        receive(self, message, *pieces)

    monkeypatch.setattr(Arrivals, "receive", spy)
    with MetricsLogger(path) as logger:
        jax.vmap(jax.vmap(with_scan(logger)))(jnp.ones((2, 3)))
    assert arrived == [6 * iterations for iterations in (3, 3, 1)]


def test_a_constant_record_in_a_differentiated_loop_is_logged_once_in_all(path):
    """A stated limit: nothing tells JAX that it can't be moved out of the loop."""
    with MetricsLogger(path) as logger:

        def run(x):
            def body(value, _):
                logger.emit({"x": x})
                return value * x, None

            return jax.lax.scan(body, 1.0, None, length=3)[0]

        jax.jit(run)(2.0)
        jax.jit(jax.grad(run))(2.0)
    assert logged(path) == [{"x": 2.0}] * (3 + 1)


def branch_and_loop(logger, with_where):
    def branch(x):
        logger.emit({"branch": x}, where=x > 0 if with_where else None)
        return x

    def body(carry):
        step, end = carry
        logger.emit({"loop": step}, where=step < end if with_where else None)
        return step + 1, end

    def run(x):
        jax.lax.cond(x > 0, branch, lambda x: x, x)
        return jax.lax.while_loop(lambda carry: carry[0] < carry[1], body, (0, x))[0]

    return run


def test_where_says_which_lanes_count(path):
    with MetricsLogger(path) as logger:
        jax.jit(jax.vmap(branch_and_loop(logger, with_where=True)))(jnp.array([0, 1, 2]))
    assert in_any_order(logged(path)) == in_any_order(
        [
            *({"branch": 1, "lane": 1}, {"branch": 2, "lane": 2}),
            *({"loop": 0, "lane": 1}, {"loop": 0, "lane": 2}, {"loop": 1, "lane": 2}),
        ]
    )


def test_without_where_lanes_that_do_not_count_are_logged_too(path):
    """A stated limit: JAX runs them, and tells nobody."""
    with MetricsLogger(path) as logger:
        jax.jit(jax.vmap(branch_and_loop(logger, with_where=False)))(jnp.array([0, 1, 2]))
    records = logged(path)
    assert [record["lane"] for record in records if "branch" in record] == [0, 1, 2]
    assert [record["lane"] for record in records if "loop" in record] == [0, 1, 2] * 2
