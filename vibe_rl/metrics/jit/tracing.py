"""Logging from inside compiled functions: what `logger.emit` and `logger.scan` trace.

Records travel packed, through `jax.debug.callback`: the one callback that JAX neither drops when it
differentiates a scan, nor refuses under `checkpoint`, `cond` or `while_loop`. It stands inside a
`custom_vmap` function, which keeps JAX from unrolling it over mapped axes, and from running it
again when `checkpoint` recomputes.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import custom_vmap

from vibe_rl.metrics.jit.arrivals import Arrivals
from vibe_rl.metrics.jit.messages import Message, Rate
from vibe_rl.metrics.jit.packing import flatten, pack_any, replicated, transfers_allowed

Carry = TypeVar("Carry")

# Words that cross in one array. JAX copies what a callback gets; 100 KiB and more it copies on the
# threads that may all be waiting for this callback: with one core, and 2 MB, that hangs for good.
_PIECE = 16_384

# What JAX calls the axis of a `pmap` without a name.
_UNNAMED = "_internal_pmap_axis_name"


def emit(arrivals: Arrivals, record: Mapping[str, Any], due: Any, *, lane: str) -> None:
    """Log a record from inside a compiled function if it is `due`; see `MetricsLogger.emit`."""
    with transfers_allowed():
        _send(arrivals, record, due, lane=lane)


class Scanning(NamedTuple):
    """How a scan goes and logs; see `MetricsLogger.scan`."""

    reverse: bool
    unroll: int | bool
    lane: str
    metrics: Callable[[Any], Mapping[str, Any]] | None
    collect: bool
    numbered: bool  # whether records get a step
    rate: str | None


def scan(
    arrivals: Arrivals,
    f: Callable[[Carry, Any], tuple[Carry, Any]],
    init: Carry,
    xs: Any,
    length: int | None,
    *,
    every: int,
    start: Any,
    how: Scanning,
) -> tuple[Carry, Any]:
    """Scan in chunks of `every` iterations, each of which sends its records in one callback."""
    lengths = {np.shape(x)[0] if np.shape(x) else None for x in jax.tree.leaves(xs)}
    lengths |= {length} - {None}
    if len(lengths) != 1 or not (total := lengths.pop()):
        # No iteration, or a mistake that lax.scan explains.
        carry, ys = jax.lax.scan(f, init, xs, length, how.reverse, how.unroll)
        return carry, ys if how.collect else None
    with transfers_allowed():
        first = _first_step(start, total)
    chunk = _chunk(arrivals, f, how)

    def run(carry: Carry, row: int, chunks: int, size: int) -> tuple[Carry, Any]:
        def cut(x: Any) -> Any:
            return x[row : row + chunks * size].reshape(chunks, size, *x.shape[1:])

        with transfers_allowed():
            # The second tells a chunk its length, without a byte of memory.
            starts = first + row + size * jnp.arange(chunks, dtype=first.dtype)
            inputs = (starts, jnp.zeros((chunks, size, 0)), jax.tree.map(cut, xs))
        carry, ys = jax.lax.scan(chunk, carry, inputs, reverse=how.reverse)
        return carry, jax.tree.map(lambda y: y.reshape(chunks * size, *y.shape[2:]), ys)

    # The rest, fewer than `every` iterations, comes last in the direction of the scan.
    chunks, rest = divmod(total, every)
    if not rest:
        return run(init, 0, chunks, every)
    if not chunks:
        return run(init, 0, 1, rest)
    carry, ys = run(init, rest if how.reverse else 0, chunks, every)
    carry, last = run(carry, 0 if how.reverse else total - rest, 1, rest)
    parts = (last, ys) if how.reverse else (ys, last)
    return carry, jax.tree.map(lambda *ys: jnp.concatenate(ys), *parts)


def _first_step(start: Any, total: int) -> jax.Array:
    """The first of so many steps, in a type of at least 32 bits; of 64 only if JAX has these."""
    dtype = jax.dtypes.canonicalize_dtype(getattr(start, "dtype", np.int64))
    if dtype.itemsize < 4:
        dtype = np.dtype(np.int32)
    if not isinstance(start, jax.core.Tracer):
        start, limits = int(start), np.iinfo(dtype)
        if start < limits.min or start + total - 1 > limits.max:
            raise ValueError(
                f"step={start}: {total} steps from there don't fit {dtype.name}"
                + ("" if dtype.itemsize > 4 else "; jax_enable_x64 allows 64 bits")
            )
    return jnp.asarray(start, dtype)


def _chunk(arrivals: Arrivals, f: Callable[..., Any], how: Scanning) -> Callable[..., Any]:
    """The function that runs a chunk of `f`'s iterations; as long as `f` lives, always the same.

    So JAX finds the trace of an earlier scan outside `jit` again, as it does with `lax.scan`.
    """
    try:
        ref = weakref.ref(f)
        known_how, known = arrivals.chunks.get(f, (None, None))
    except TypeError:  # an f of a kind that JAX can't cache either
        return _make_chunk(arrivals, lambda: f, how)
    if known_how == how:
        return known  # type: ignore[no-any-return]
    # It must not keep `f` alive, or it would never leave the cache.
    chunk = _make_chunk(arrivals, ref, how)
    # Or an equal function would stay the key, and outlive the one that the chunk refers to.
    arrivals.chunks.pop(f, None)
    arrivals.chunks[f] = (how, chunk)
    return chunk


def _make_chunk(
    arrivals: Arrivals, get_f: Callable[[], Any], how: Scanning
) -> Callable[[Any, Any], tuple[Any, Any]]:
    rate = None if how.rate is None else Rate(how.rate)

    def chunk(carry: Any, inputs: tuple[jax.Array, jax.Array, Any]) -> tuple[Any, Any]:
        f = get_f()

        def iteration(carry: Any, x: Any) -> tuple[Any, Any]:
            result = f(carry, x)
            if not isinstance(result, tuple) or len(result) != 2:
                raise TypeError(f"f returns a pair, (carry, y), not {result!r:.99}")
            carry, y = result
            metrics = y if how.metrics is None else how.metrics(y)
            _check_scalars(metrics)
            return carry, (y if how.collect and how.metrics else None, metrics)

        first, rows, xs = inputs
        size = len(rows)
        carry, (ys, metrics) = jax.lax.scan(iteration, carry, xs, size, how.reverse, how.unroll)
        steps = first + jnp.arange(size, dtype=first.dtype)
        # With a number from each iteration in it, JAX can't move the callback out of the loop.
        named = {"step": steps, **metrics} if how.numbered else metrics
        if not named:
            raise ValueError("there is nothing to log: no y has a metric, and step is None")
        if rate and "step" not in named:
            raise ValueError(f"rate={how.rate!r} is how fast 'step' grows, but records have none")
        _send(arrivals, named, lane=how.lane, rows=size, reverse=how.reverse, rate=rate)
        if not how.collect:
            return carry, None
        return carry, ys if how.metrics else metrics

    return chunk


def _check_scalars(metrics: Mapping[str, Any]) -> None:
    for name, value in flatten(metrics)[1]:
        if value is None or isinstance(value, str):
            raise TypeError(f"metric {name!r}: is {value!r}; scan logs numbers only")
        if value.size != 1:
            raise ValueError(
                f"metric {name!r}: has shape {value.shape}, but scan logs scalars: reduce it, with "
                "scan(..., metrics=lambda y: {...}) if the function must go on returning it"
            )


def _send(
    arrivals: Arrivals,
    record: Mapping[str, Any],
    due: Any = True,
    *,
    lane: str,
    rows: int | None = None,
    reverse: bool = False,
    rate: Rate | None = None,
) -> None:
    """Send a record to the host if it is due; or so many, stacked, if `rows` is not None."""
    arrivals.traced = True
    labels, is_first = _shards((record, due), lane)
    due = is_first & due
    always = due is True
    packed = pack_any(record)
    header = jnp.stack([jnp.asarray(each).astype(np.uint32) for each in (due, *labels.values())])
    read = functools.partial(
        Message,
        packed.layout,
        labels=tuple(labels),
        lane=lane,
        rows=rows,
        reverse=reverse,
        is_due=always,
        rate=rate,
    )

    def call(words: Any) -> None:
        receive = functools.partial(arrivals.receive, read(words.shape))
        flat = replicated(words).reshape(-1)
        pieces = [flat[start : start + _PIECE] for start in range(0, flat.size, _PIECE)]
        jax.debug.callback(receive, *pieces)

    @custom_vmap
    def send(words: Any, due: Any) -> tuple[()]:
        if always:
            call(words)
        else:
            # Of many lanes, one that is due is enough: the host leaves out the others.
            jax.lax.cond(jnp.any(due), lambda: call(words), lambda: None)
        return ()

    @send.def_vmap
    def send_lanes(
        axis_size: int, in_batched: list[bool], words: Any, due: Any
    ) -> tuple[tuple[()], tuple[()]]:
        del axis_size, in_batched  # the words are batched for sure, for `due` is among them
        return send(words, due), ()

    send(jnp.concatenate([replicated(header), packed.words]), due)


def _shards(values: Any, lane: str) -> tuple[dict[str, Any], Any]:
    """Which part of a `shard_map` (or `pmap`) this is.

    Returns:
        The index along each mesh axis over which the values vary, or may vary, by the axis's name,
        or `lane` if it has none; and whether it is the first part along all others, where each
        part has the same values.
    """
    labels = {}
    first: Any = True
    for axis in jax.sharding.get_abstract_mesh().manual_axes:
        index = jax.lax.axis_index(axis)
        is_known = axis in _varying(index)  # not with check_vma=False
        if is_known and not any(axis in _varying(leaf) for leaf in jax.tree.leaves(values)):
            first = first & (index == 0)
        else:
            labels[lane if axis == _UNNAMED else axis] = index
    return labels, first


def _varying(value: Any) -> frozenset[str]:
    """The mesh axes over which JAX knows that a value varies."""
    kind: Any = jax.typeof(value)
    if hasattr(kind, "manual_axis_type"):
        kind = kind.manual_axis_type
        return frozenset(kind.varying)
    return getattr(kind, "vma", frozenset())  # up to JAX 0.9
