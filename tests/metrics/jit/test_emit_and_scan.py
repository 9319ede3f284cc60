"""What `logger.emit` and `logger.scan` promise beside logging each record once."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vibe_rl.metrics import MetricsLogger, pack, read_metrics
from vibe_rl.metrics.jit.arrivals import Arrivals


@pytest.fixture
def path(tmp_path):
    return tmp_path / "metrics.jsonl"


def logged(path):
    records = read_metrics(path)
    for record in records:
        assert record.pop("wall_time") >= 0
    return records


def in_any_order(records):
    return sorted(records, key=lambda record: str(sorted(record.items())))


@pytest.fixture
def callbacks(monkeypatch):
    """Gets the number of records that each callback brings."""
    sizes = []
    receive = Arrivals.receive

    def spy(self, message, *pieces):
        sizes.append(message.count(np.concatenate(pieces)))
        receive(self, message, *pieces)

    monkeypatch.setattr(Arrivals, "receive", spy)
    return sizes


# -- emit -----------------------------------------------------------------------------------------


def test_outside_jit_emit_is_write(path):
    with MetricsLogger(path) as logger:
        logger.emit({"step": 1, "loss": jnp.float32(0.42), "tags": ["a", "b"]})
        for step in range(5):
            logger.emit({"loss": 0.5}, step=step, every=2)
            logger.emit({"step": jnp.int32(step), "late": True}, where=jnp.array(step > 3), every=2)
    assert logged(path) == [
        {"step": 1, "loss": 0.42, "tags": ["a", "b"]},
        *({"step": 0, "loss": 0.5}, {"step": 2, "loss": 0.5}, {"step": 4, "loss": 0.5}),
        {"step": 4, "late": True},
    ]


def test_inside_jit_constants_are_logged_at_each_call_and_not_when_traced(path):
    with MetricsLogger(path) as logger:

        @jax.jit
        def f(x):
            logger.emit({"phase": "train", "none": None})
            return x

        f(f(1))
    assert logged(path) == [{"none": None, "phase": "train"}] * 2


def test_everything_that_pack_takes_arrives(path):
    record = {
        "step": 3,
        "nested": {"half": jnp.bfloat16(0.42), "big": jnp.int32(2**24 + 1), "text": "a"},
        "vector": jnp.arange(3),
        "nan": jnp.nan,
        "yes": jnp.bool_(True),
    }
    with MetricsLogger(path) as logger:
        jax.jit(lambda: logger.emit(record))()
    (arrived,) = logged(path)
    assert str(arrived.pop("nan")) == "nan"
    assert arrived == {
        "step": 3,
        "nested": {"half": 0.42, "big": 2**24 + 1, "text": "a"},
        "vector": [0, 1, 2],
        "yes": True,
    }


@pytest.mark.parametrize("wrap", [jax.jit, jax.grad], ids=["jit", "grad"])
def test_every_skips_in_compiled_code(path, callbacks, wrap):
    with MetricsLogger(path) as logger:

        def run(x):
            def body(value, step):
                logger.emit({"value": value}, step=step, every=4)
                return value * x, None

            return jax.lax.scan(body, 1.0, jnp.arange(10))[0]

        wrap(run)(2.0)
    assert logged(path) == [{"step": step, "value": 2.0**step} for step in (0, 4, 8)]
    assert len(callbacks) == 3


def test_every_skips_in_compiled_code_also_when_each_lane_counts_for_itself(path, callbacks):
    with MetricsLogger(path) as logger:

        def run(start):
            def body(carry):
                step, end = carry
                logger.emit({"step": step}, every=4)
                return step + 1, end

            return jax.lax.while_loop(lambda carry: carry[0] < carry[1], body, (start, start + 10))

        jax.jit(jax.vmap(run))(jnp.array([0, 0]))
        assert len(callbacks) == 3
        jax.jit(jax.vmap(run))(jnp.array([0, 1]))
    assert len(callbacks) == 3 + 5
    assert logger.stats.written == 6 + 5
    assert logged(path) == [
        *({"step": step, "lane": lane} for step in (0, 4, 8) for lane in (0, 1)),
        {"step": 0, "lane": 0},
        *({"step": step, "lane": lane} for step in (4, 8) for lane in (1, 0)),
    ]


def test_a_record_has_its_own_step_beside_the_one_that_every_counts(path):
    with MetricsLogger(path) as logger:
        jax.jit(lambda x: logger.emit({"step": x}, step=x // 128, every=2))(jnp.int32(256))
        jax.jit(lambda x: logger.emit({"step": x}, step=x // 128, every=2))(jnp.int32(128))
    assert logged(path) == [{"step": 256}]


def test_a_lane_gets_the_name_that_was_chosen_and_a_field_of_that_name_stays(path):
    with MetricsLogger(path) as logger:

        @jax.vmap
        def f(x):
            logger.emit({"x": x}, lane="seed")
            logger.emit({"x": x, "seed": 10 * x}, lane="seed")

        f(jnp.arange(2))
    assert in_any_order(logged(path)) == in_any_order(
        [{"x": x, "seed": seed} for x in (0, 1) for seed in (x, 10 * x)]
    )


@pytest.mark.parametrize(
    ("record", "settings", "kind", "message"),
    [
        ({"a": 1}, {"every": 2}, ValueError, r"pass step=, or a record that has a 'step'"),
        ({"step": 1.0}, {"every": 2}, TypeError, r"one integer.*"),
        ({"step": 1}, {"every": 0}, ValueError, r"at least 1, not 0"),
        ({"step": 1}, {"every": 2.0}, ValueError, r"at least 1, not 2\.0"),
        ({"a": 1}, {"where": 1}, TypeError, r"one boolean, not 1"),
        ({"a": 1}, {"where": np.ones(2, bool)}, TypeError, r"one boolean"),
        ({"a": object()}, {}, TypeError, r"metric 'a'.*object"),
        ({"a": {"b": 1j}}, {}, TypeError, r"metric 'a\.b'.*(1j|complex)"),
        ({"_nonfinite": 1}, {}, ValueError, r"'_nonfinite' is the format's own"),
        ([1], {}, TypeError, r"mapping of names to .*\[1\]"),
        ([1], {"step": 3}, TypeError, r"a record is a mapping of names to .*\[1\]"),
        ([1], {"every": 3}, TypeError, r"a record is a mapping of names to .*\[1\]"),
        (pack({"a": 1}), {"step": 3}, TypeError, r"a record is a mapping of names to .*"),
    ],
)
@pytest.mark.parametrize("inside", [True, False], ids=["inside", "outside"])
def test_emit_refuses_at_the_call(path, inside, *, record, settings, kind, message):
    with MetricsLogger(path) as logger:
        call = functools.partial(logger.emit, record, **settings)
        with pytest.raises(kind, match=message):
            jax.jit(call)() if inside else call()
    assert logged(path) == []


def test_a_closed_logger_refuses_to_be_traced(path):
    with MetricsLogger(path) as logger:
        pass
    for call in (
        lambda x: logger.emit({"x": x}),
        lambda x: logger.scan(lambda c, _: (c, {"c": c}), x, length=2),
    ):
        with pytest.raises(ValueError, match=r"closed"):
            jax.jit(call)(1)


# -- scan -----------------------------------------------------------------------------------------

STEPS = 7
XS = {"a": np.linspace(0, 1, STEPS), "keys": jax.random.split(jax.random.key(0), STEPS)}


def train_step(carry, x):
    value, count = carry
    value = jnp.sin(value) * 1.5 + x["a"] * (jax.random.key_data(x["keys"])[0] % 7)
    return (value, count + 1), {"value": value, "nested": {"half": value / 2}}


def run(scan, start, slope):
    """A run whose derivative by both arguments goes through the carry, the xs and the ys."""
    (value, count), ys = scan(train_step, (start, 0), {**XS, "a": XS["a"] * slope})
    return value + (ys["nested"]["half"] * jnp.arange(STEPS)).sum(), (count, ys)


def assert_equal(ours, theirs):
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert (one.dtype, one.weak_type, one.shape) == (other.dtype, other.weak_type, other.shape)
        np.testing.assert_allclose(one, other, rtol=1e-5)


@pytest.mark.parametrize(("every", "reverse"), [(1, False), (3, False), (3, True), (7, False)])
def test_scan_gives_what_lax_scan_gives_and_the_same_derivatives(path, every, reverse):
    def differentiate(scan):
        f = functools.partial(run, functools.partial(scan, reverse=reverse))
        gradient = jax.grad(jax.checkpoint(f), (0, 1), has_aux=True)
        return (
            jax.jit(f)(0.3, 2.0),
            jax.jit(jax.value_and_grad(f, (0, 1), has_aux=True))(0.3, 2.0),
            jax.jit(jax.vmap(gradient, in_axes=(None, 0)))(0.3, jnp.arange(3.0)),
        )

    with MetricsLogger(path) as logger:
        assert_equal(
            differentiate(functools.partial(logger.scan, every=every)), differentiate(jax.lax.scan)
        )


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("every", [1, 3, 7, 100])
def test_records_come_in_the_order_of_the_iterations(path, callbacks, reverse, every):
    with MetricsLogger(path) as logger:
        _, ys = logger.scan(train_step, (0.3, 0), XS, every=every, reverse=reverse, unroll=2)
    order = range(STEPS)[:: -1 if reverse else 1]
    halves = [record["nested"]["half"] for record in logged(path)]
    assert [record["step"] for record in logged(path)] == list(order)
    assert np.float32(halves).tolist() == ys["nested"]["half"][np.array(order)].tolist()
    assert len(callbacks) == -(-STEPS // every)


@pytest.mark.parametrize(
    ("xs", "length"),
    [(None, 0), (np.zeros((0, 2)), None), (None, None), ({"a": XS["a"]}, 3), (1.0, None)],
)
def test_what_lax_scan_refuses_or_has_nothing_to_do_for_is_left_to_it(path, xs, length):
    def outcome(scan):
        try:
            return jax.tree.map(jnp.shape, scan(lambda c, x: (c, {"c": c}), 1.0, xs, length))
        except Exception as error:
            return type(error), str(error)

    with MetricsLogger(path) as logger:
        assert outcome(logger.scan) == outcome(jax.lax.scan)


def test_metrics_picks_what_is_logged_and_collect_what_is_returned(path):
    def body(carry, _):
        return carry + 1, (carry, jnp.ones((2, 3)) * carry)

    def metrics(y):
        return {"mean": y[1].mean(), "step": 10 * y[0]}

    with MetricsLogger(path) as logger:
        scan = functools.partial(logger.scan, body, 0, length=5, every=2, metrics=metrics)
        _, ys = scan()
        assert [y.shape for y in ys] == [(5,), (5, 2, 3)]
        assert scan(collect=False) == (5, None)
        assert logger.scan(lambda c, _: (c, {"c": c}), 0, length=1, collect=False) == (0, None)
    expected = [{"mean": step, "step": 10 * step} for step in range(5)]
    assert logged(path) == [*expected, *expected, {"c": 0, "step": 0}]


def test_steps_count_on_from_where_they_are_told(path):
    with MetricsLogger(path) as logger:

        @jax.jit
        def epochs(value):
            def epoch(value, number):
                return logger.scan(
                    lambda v, _: (v + 1, {"v": v}), value, length=2, step=2 * number, collect=False
                )

            return jax.lax.scan(epoch, value, jnp.arange(3))

        epochs(10)
        logger.scan(lambda v, _: (v + 1, {"v": v}), 0, length=2, step=None)
    assert logged(path) == [
        *({"step": step, "v": 10 + step} for step in range(6)),
        *({"v": 0}, {"v": 1}),
    ]


def count_from(logger, step):
    return logger.scan(lambda c, _: (c, {"c": c}), 0, length=3, step=step)


@pytest.mark.parametrize(
    "start",
    [np.uint8(254), np.int64(126), jnp.int8(126), 2**31 - 3, -(2**31), np.uint32(2**32 - 3)],
)
def test_steps_count_on_whatever_the_type_of_the_first(path, start):
    with MetricsLogger(path) as logger:
        count_from(logger, start)
        jax.jit(lambda step: count_from(logger, step))(start)
    steps = [int(start) + i for i in range(3)]
    assert [record["step"] for record in logged(path)] == steps * 2


@pytest.mark.parametrize("x64", [False, True])
@pytest.mark.parametrize("start", [2**31 - 2, np.int64(2**40 + 5), jnp.int32(2**31 - 2), 2**70])
def test_steps_that_do_not_fit_are_refused(path, start, x64):
    fits = x64 and not isinstance(start, jax.Array) and start < 2**63
    with MetricsLogger(path) as logger, jax.enable_x64(x64):
        if fits:
            count_from(logger, start)
        else:
            with pytest.raises(ValueError, match=rf"step={int(start)}: 3 steps .* don't fit int"):
                count_from(logger, start)
    expected = [int(start) + i for i in range(3)] if fits else []
    assert [record["step"] for record in logged(path)] == expected


@pytest.mark.parametrize(
    "start", [jnp.arange(3), np.arange(1), [1], [[1], [1, 2]], 0.5, True, "1", jnp.float32(1)]
)
def test_scan_refuses_a_step_that_is_no_integer(path, start):
    with MetricsLogger(path) as logger, pytest.raises(TypeError, match="step is one integer, not"):
        count_from(logger, start)


@pytest.mark.parametrize("length", [6, 20_000], ids=["few", "many"])
def test_rate_is_how_fast_the_step_has_grown_since_the_last_callback(path, length):
    def body(carry, _):
        return carry + 1, {"step": 16 * carry}

    every = length // 2
    with MetricsLogger(path) as logger:
        scan = functools.partial(
            logger.scan, body, length=length + 1, every=every, step=None, rate="steps_per_second"
        )
        train = jax.jit(jax.vmap(lambda start: scan(start, collect=False)))
        train(jnp.arange(2))
        jax.effects_barrier()
        train(jnp.arange(2))  # a run of its own, not one that goes backwards
    for run in np.split(np.array(read_metrics(path)), 2):
        first, second, last = run[0], run[2 * every], run[-1]
        assert not any("steps_per_second" in record for record in run[: 2 * every])
        assert {record["steps_per_second"] for record in run[2 * every : -2]} == {
            second["steps_per_second"]
        }
        for before, after, grown in [(first, second, 16 * every), (second, last, 16)]:
            elapsed = after["wall_time"] - before["wall_time"]
            assert after["steps_per_second"] == pytest.approx(grown / elapsed)


def test_rate_needs_a_step_and_leaves_a_field_of_its_name(path):
    def body(carry, _):
        return carry + 1, {"rate": carry}

    with MetricsLogger(path) as logger:
        logger.scan(body, 0, length=4, every=1, rate="rate")
        with pytest.raises(ValueError, match=r"rate='r' is how fast 'step' grows"):
            logger.scan(body, 0, length=4, step=None, rate="r")
    assert [record["rate"] for record in logged(path)] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("settings", "kind", "message"),
    [
        ({"f": lambda carry, _: carry}, TypeError, r"f returns a pair, \(carry, y\), not "),
        ({"lane": 3}, TypeError, r"lane is the name of a field, not 3"),
        ({"f": lambda carry, _: (carry, {}), "step": None}, ValueError, r"nothing to log"),
        ({"every": True}, ValueError, r"every is a number of iterations, at least 1, not True"),
        ({"length": 4.0}, ValueError, r"length is a number of iterations, at least 0, not 4\.0"),
        ({"length": "4"}, ValueError, r"length is a number of iterations, at least 0, not '4'"),
        ({"length": -1}, ValueError, r"length is a number of iterations, at least 0, not -1"),
    ],
)
def test_scan_refuses_at_the_call(path, settings, kind, message):
    settings = {"f": lambda carry, _: (carry, {"c": carry}), "length": 4, **settings}
    with MetricsLogger(path) as logger, pytest.raises(kind, match=message):
        logger.scan(init=0, **settings)


def test_a_length_that_is_known_only_when_it_runs_is_refused_by_name(path):
    with MetricsLogger(path) as logger, pytest.raises(ValueError, match=r"length is .*Tracer"):
        jax.jit(lambda length: logger.scan(lambda c, _: (c, {"c": c}), 0, length=length))(4)


@pytest.mark.parametrize("integer", [np.int64, jnp.int32])
def test_integers_of_numpy_and_jax_are_integers(path, integer):
    with MetricsLogger(path, queue_size=integer(64), defer=integer(1)) as logger:
        logger.scan(lambda c, _: (c, {"c": c}), 0, length=integer(4), every=integer(2))
        logger.scan(lambda c, _: (c, {"c": c}), 0, jnp.arange(1), length=integer(1), step=4)
        logger.emit({"step": 5, "c": 0}, every=integer(5))
    assert [record["step"] for record in logged(path)] == [0, 1, 2, 3, 4, 5]


def test_the_step_takes_no_memory_that_grows_with_the_scan(path):
    with MetricsLogger(path) as logger:

        def train(value):
            scan = functools.partial(logger.scan, every=100, collect=False)
            return scan(lambda c, _: (c + 1, {"c": c}), value, length=1_000_000)

        memory = jax.jit(train).lower(0).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 500_000


def test_scans_inside_scans_both_log(path):
    with MetricsLogger(path) as logger:

        def inner(value, x):
            return value + x, {"inner": value}

        def outer(value, x):
            value, _ = logger.scan(inner, value, jnp.full(2, x), lane="env")
            return value, {"outer": value}

        jax.jit(
            jax.vmap(lambda value: logger.scan(outer, value, jnp.arange(3), every=2, lane="seed"))
        )(jnp.array([0, 100]))
    expected = []
    for seed, value in enumerate([0, 100]):
        for x in range(3):  # the value goes up by x twice
            before = value + x * (x - 1)
            expected += [{"inner": before + i * x, "step": i, "env": seed} for i in range(2)]
            expected.append({"outer": before + 2 * x, "step": x, "seed": seed})
    assert in_any_order(logged(path)) == in_any_order(expected)


@pytest.mark.parametrize(
    ("y", "kind", "message"),
    [
        (lambda c: c, TypeError, r"mapping of names to scalars"),
        (lambda c: {"a": jnp.ones((4, 8))}, ValueError, r"'a': has shape \(4, 8\).*metrics="),
        (lambda c: {"a": {"b": "text"}}, TypeError, r"'a\.b': is 'text'"),
        (lambda c: {"a": jnp.complex64(1)}, TypeError, r"'a'.*complex64"),
    ],
)
def test_scan_refuses_what_it_cannot_log(path, y, kind, message):
    with MetricsLogger(path) as logger, pytest.raises(kind, match=message):
        logger.scan(lambda c, _: (c, y(c)), 0, length=3)


def test_scan_refuses_a_bad_every(path):
    with MetricsLogger(path) as logger, pytest.raises(ValueError, match=r"at least 1, not 0"):
        logger.scan(train_step, (0.3, 0), XS, every=0)


def test_outside_jit_a_function_is_traced_once_however_often_it_is_scanned(path):
    traces = []

    def body(carry, x):
        traces.append(x)
        return carry + x, {"carry": carry}

    def count(**settings):
        before = len(traces)
        for _ in range(3):
            logger.scan(body, 0.0, jnp.arange(6.0), **settings)
        return len(traces) - before

    with MetricsLogger(path) as logger:
        assert count(every=3) == 1
        assert count(every=3) == 0
        assert count(every=3, lane="seed") == 1
        assert count(every=4, lane="seed") == 2  # chunks of 4 and of 2


@dataclasses.dataclass(frozen=True)
class Decay:
    rate: float

    def __call__(self, carry, _):
        return carry * self.rate, {"carry": carry}


@pytest.mark.parametrize("another", [dataclasses.replace, lambda decay: decay.__call__])
def test_a_function_may_be_equal_to_one_that_dies_before_it(path, another):
    decay = Decay(0.5)
    step = another(decay)
    with MetricsLogger(path) as logger:
        logger.scan(step, 1.0, length=4, every=2)
        logger.scan(another(decay), 1.0, length=4, every=2, lane="seed")
        logger.scan(step, 1.0, length=6, every=3, lane="seed")
    values = [0.5**i for length in (4, 4, 6) for i in range(length)]
    assert [record["carry"] for record in logged(path)] == values
