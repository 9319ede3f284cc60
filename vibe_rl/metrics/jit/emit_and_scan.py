"""`emit` and `scan`: the part of `MetricsLogger` that works inside compiled functions."""

from __future__ import annotations

import abc
import operator
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np

from vibe_rl.metrics.jit.arrivals import Arrivals, is_tracing
from vibe_rl.metrics.jit.packing import Packed, transfers_allowed
from vibe_rl.metrics.settings import checked_count

Carry = TypeVar("Carry")


class LogsInsideJit(abc.ABC):
    """What a logger needs in order to log from inside compiled functions too."""

    _arrivals: Arrivals

    @abc.abstractmethod
    def write(self, record: Mapping[str, Any] | Packed) -> None:
        """Log one record."""

    def emit(
        self,
        record: Mapping[str, Any],
        *,
        every: int | None = None,
        step: Any = None,
        where: Any = None,
        lane: str = "lane",
    ) -> None:
        """Log one record from anywhere: `write()` that also works inside compiled functions.

        Inside `jit`, `scan`, `cond`, `while_loop`, `grad`, `checkpoint` and the like, the record is
        logged when the compiled function gets there, once each time, at about 100 µs: JAX calls
        back to Python. `every` skips in compiled code, at about a microsecond; a loop that is to
        log each iteration is cheaper as `logger.scan`. Outside, it is `write()`.

        Under `vmap` there is one record for each lane of the mapped axis, all in one callback, if
        the record depends on that axis; with its index under the name `lane` (under nested `vmap`,
        a list of indices, outermost first). Under `shard_map` there is one for each shard over
        which the values vary, with its index under the mesh axis's name; so under `pmap`, whose
        axis, if it has no name, is the outermost `lane`. A field of the record's own by the same
        name stays. Where the shards are spread over several processes, each process logs those it
        holds: with `process="primary"`, only process 0's shards are logged; make the logger with
        `process="all"` to log them all.

        Where JAX computes what doesn't count, `where` must say so: under `vmap`, both branches of
        a `cond` run in every lane, and finished lanes of a `while_loop` go on running. JAX promises
        no order between two callbacks, so give records a step; and a record in a loop that depends
        on nothing that changes in it is logged once if JAX moves it out of the loop, as it does
        when differentiating.

        Args:
            record: As for `pack`: names to scalars, arrays, text or None, or mappings of these.
                Outside compiled functions, whatever `write()` takes (what is packed as a whole,
                without `step` and `every` only). `wall_time` is the arrival.
            every: Log only if the step is a multiple of this. None logs always.
            step: The step that `every` counts; the record's own `"step"` if None. It is logged as
                `"step"` unless the record has one.
            where: A boolean scalar: whether to log. None is True.
            lane: What to call the index along mapped axes.

        Raises:
            TypeError: If the record, `step` or `where` is of a kind that can't be logged; names
                the metric.
            ValueError: If `every` is no positive number or has no step to count, or if the logger
                is closed. What arrives from a compiled function after that is counted in `stats`.

        Examples:
            >>> with MetricsLogger("runs/example/metrics.jsonl") as logger:
            ...     @jax.jit
            ...     def train(weight):
            ...         def train_step(step, weight):
            ...             logger.emit({"step": step, "weight": weight}, every=10)
            ...             return weight * 0.9
            ...         return jax.lax.fori_loop(0, 30, train_step, weight)
            ...     weight = train(jnp.float32(1))
            >>> [record["step"] for record in read_metrics("runs/example/metrics.jsonl")]
            [0, 10, 20]
        """
        _check_record(record, has_step=step is not None or every is not None)
        _check_lane(lane)
        due = _is_due(record, every=every, step=step, where=where)
        if step is not None:
            record = {"step": step, **record}
        if is_tracing():
            from vibe_rl.metrics.jit import tracing  # noqa: PLC0415 - imports jax

            self._arrivals.check_open()
            tracing.emit(self._arrivals, record, due, lane=lane)
        elif due:
            self.write(record)

    def scan(  # noqa: PLR0917 - the arguments of lax.scan, in its order
        self,
        f: Callable[[Carry, Any], tuple[Carry, Any]],
        init: Carry,
        xs: Any = None,
        length: int | None = None,
        reverse: bool = False,
        unroll: int | bool = 1,
        *,
        every: int = 100,
        step: Any = 0,
        lane: str = "lane",
        metrics: Callable[[Any], Mapping[str, Any]] | None = None,
        collect: bool = True,
        rate: str | None = None,
    ) -> tuple[Carry, Any]:
        """`jax.lax.scan` that logs each `y` while the computation is still running.

        What `every` iterations return crosses to the host in one callback, so that a record costs
        about a microsecond; a killed process loses that many. It works wherever `lax.scan` does:
        inside `jit`, `vmap`, `grad`, `checkpoint` and other scans, and changes no result or
        derivative. Each iteration's record is logged once; in order, if an iteration's depends on
        the one before. `emit` says what becomes of it under `vmap` and `shard_map`, how it is
        labelled there, and what JAX computes that doesn't count.

        Args:
            f: `(carry, x) -> (carry, y)`, where `y` is a mapping of names to scalars, unless
                `metrics` is given.
            init: The first carry.
            xs: What to scan over: arrays with one leading axis, in any pytree, or None.
            length: The number of iterations; needed if there is no `xs`.
            reverse: Whether to go from the last to the first.
            unroll: As in `lax.scan`, of the iterations between two callbacks.
            every: How many iterations to log at once. If it doesn't divide their number, the rest
                is compiled as a second loop, which doubles the time to compile `f`.
            step: The first iteration's number: records get a `"step"` that counts up from there,
                unless they have one. One integer, of Python, NumPy or JAX. None adds none.
            lane: What to call the index along mapped axes.
            metrics: Picks what to log: `y -> names to scalars`. None logs `y`.
            collect: Whether to return the `ys`. Without, a long run needs no memory for them.
            rate: The name of a field that says how many steps a second the run makes: by how much
                the records' `step` has grown since the last callback, by the time between the two
                arrivals. All records of a callback share it, those of a run's first have none. A
                field of that name in `y` stays. None adds none.

        Returns:
            The last carry and the stacked `ys`, as `lax.scan` does; None for these if not
            `collect`.

        Raises:
            TypeError: If what is to be logged is no mapping, or a value is of a kind that can't be
                logged; names the metric. If `step` is no integer.
            ValueError: If a value is no scalar, `every` or `length` no number of iterations, if
                steps outgrow their type (32 bits, unless `jax_enable_x64` is set), if there is no
                step to take a `rate` of, or if the logger is closed.

        Examples:
            >>> def train_step(weight, _):
            ...     return weight * 0.9, {"loss": weight**2}
            >>> with MetricsLogger("runs/seeds/metrics.jsonl") as logger:
            ...     @jax.jit
            ...     @jax.vmap
            ...     def train(weight):
            ...         return logger.scan(train_step, weight, length=1_000, every=200, lane="seed")
            ...     weights, metrics = train(jnp.arange(8.0))
            >>> len(read_metrics("runs/seeds/metrics.jsonl"))
            8000
        """
        from vibe_rl.metrics.jit import tracing  # noqa: PLC0415 - imports jax

        self._arrivals.check_open()
        _check_lane(lane)
        if step is not None:
            _check_step(step)
        return tracing.scan(
            self._arrivals,
            f,
            init,
            xs,
            None if length is None else checked_count("length", length, "iterations", least=0),
            every=checked_count("every", every, "iterations"),
            start=0 if step is None else step,
            how=tracing.Scanning(reverse, unroll, lane, metrics, collect, step is not None, rate),
        )


def _check_record(record: Any, *, has_step: bool) -> None:
    # A packed record, which `write()` takes, has no place for a step.
    if not isinstance(record, Mapping) and (has_step or not isinstance(record, Packed)):
        raise TypeError(
            f"a record is a mapping of names to values, such as {{'loss': 0.4}}, not {record!r:.99}"
        )


def _is_due(record: Mapping[str, Any], *, every: int | None, step: Any, where: Any) -> Any:
    """Whether to log a record: one boolean, of Python or of JAX, traced or not."""
    if where is not None and (np.shape(where) or _kind(where) != "b"):
        raise TypeError(f"where is one boolean, not {where!r:.99}")
    if every is None:
        return True if where is None else where
    every = checked_count("every", every, "steps")
    if step is None:
        step = record.get("step")
    if step is None:
        raise ValueError("every counts steps: pass step=, or a record that has a 'step'")
    _check_step(step)
    if not is_tracing():  # numbers, of which none has to go to the device
        return operator.index(step) % every == 0 and (where is None or bool(where))
    with transfers_allowed():
        on_step = step % every == 0
        return on_step if where is None else where & on_step


def _check_lane(lane: Any) -> None:
    if not isinstance(lane, str):
        raise TypeError(f"lane is the name of a field, not {lane!r:.99}")


def _check_step(step: Any) -> None:
    if _kind(step) not in ("i", "u") or np.shape(step):
        raise TypeError(f"step is one integer, not {step!r:.99}")


def _kind(value: Any) -> str:
    dtype = value.dtype if hasattr(value, "dtype") else np.dtype(type(value))
    return str(getattr(dtype, "kind", dtype))  # JAX's own types, of keys, have no kind
