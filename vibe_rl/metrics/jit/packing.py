"""Packing: a mapping of scalars as one array, so that a step gives the host one thing to fetch."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import math
import sys
from collections.abc import Iterable, Iterator, Mapping
from types import ModuleType
from typing import Any, NoReturn

import numpy as np

# See `Layout.names`.
Names = tuple[Any, ...]

# How the types that have no bits of their own to cast travel; every value fits exactly.
_CARRIERS = {
    **dict.fromkeys(("int2", "int4"), "int8"),
    **dict.fromkeys(("bool", "uint2", "uint4"), "uint8"),
    **dict.fromkeys(("float4_e2m1fn",), "float32"),
}


def pack(metrics: Mapping[str, Any]) -> Packed:
    """Make one array of a mapping of scalars, to be written after one transfer instead of many.

    Call it at the end of a compiled function, and give what it returns to `logger.write()`, whole
    or as a value inside a record. It is a pytree: it may be returned from `jit`, stacked by `scan`,
    batched by `vmap`, chosen by `cond`. Names, order and types are static, so nothing recompiles.
    What `scan` or `vmap` stacked is many records: give it to `logger.write_batch()`.

    Every value arrives bit for bit, in its own type: integers of up to 64 bits, booleans, and
    floats of up to 64 bits, bfloat16, float8 and the like among them.

    Args:
        metrics: Names to scalars (arrays are taken too), to text or None, which are static, or to
            a mapping of these. Python numbers become JAX's default types.

    Returns:
        The packed values.

    Raises:
        TypeError: If `metrics` is no mapping, a name no string, or a value of another kind (a
            complex number, a PRNG key, a list); names the metric.
        ValueError: If there is no number in it.

    Examples:
        >>> @jax.jit
        ... def train_step(weight):
        ...     return weight * 0.9, pack({"loss": weight**2, "positive": weight > 0})
        >>> weight, metrics = train_step(jnp.float32(2))
        >>> metrics.unpack()
        {'loss': np.float32(4.0), 'positive': np.True_}
        >>> with MetricsLogger("runs/example/metrics.jsonl") as logger:
        ...     logger.write(metrics)
    """
    with transfers_allowed():
        packed = pack_any(metrics)
    if not packed.layout.groups:
        raise ValueError(f"there is no number to pack in {dict(metrics)!r:.99}")
    return packed


class Packed:
    """What `pack` returns: one array that carries a record's values.

    Attributes:
        words: uint32, shape `(*stacked, width)`: the values' bits. `stacked` are the axes that
            `scan` and `vmap` have put in front, if any.
        layout: What the words mean.

    Examples:
        >>> lanes = jax.vmap(lambda weight: pack({"loss": weight**2}))(jnp.arange(3.0))
        >>> lanes.words.shape
        (3, 1)
        >>> lanes.unpack()
        {'loss': array([0., 1., 4.], dtype=float32)}
    """

    __slots__ = ("layout", "words")

    def __init__(self, words: Any, layout: Layout) -> None:
        self.words = words
        self.layout = layout

    def unpack(self) -> dict[str, Any]:
        """Bring the values to the host, in one transfer.

        Returns:
            The mapping that was packed: NumPy scalars of the types they had; NumPy arrays, with
            the stacked axes in front, where there are such axes. Names are in alphabetical order.
        """
        return self.layout.unpack(np.asarray(self.words))

    def __repr__(self) -> str:
        return f"Packed({self.words!r}, names={self.layout.names})"


@dataclasses.dataclass(frozen=True)
class Layout:
    """What words mean: static, so that it is part of a pytree's structure.

    Attributes:
        names: The mapping: a name for each value, and `(name, names)` for each mapping inside it.
        groups: The values that travel, in the order in which they do.
        constants: The values that don't: text and None.
        order: Where each of the mapping's values is found among the groups' and the constants.
    """

    names: Names
    groups: tuple[Group, ...]
    constants: tuple[str | None, ...]
    order: tuple[int, ...]

    def unpack(self, words: np.ndarray[Any, Any]) -> dict[str, Any]:
        """The mapping that was packed, from words on the host; see `Packed.unpack`."""
        values: list[Any] = []
        for group in self.groups:
            values.extend(group.unpack(words))
        values.extend(self.constants)
        in_order = map(values.__getitem__, self.order)
        if self.is_flat:
            return dict(zip(self.names, in_order, strict=True))  # half the cost of `_named`
        return _named(self.names, in_order)

    @functools.cached_property
    def is_flat(self) -> bool:
        """Whether there is no mapping inside the mapping."""
        return all(isinstance(name, str) for name in self.names)

    @functools.cached_property
    def dtypes(self) -> frozenset[Any]:
        """The types of the values that travel; among them None if they aren't all scalars."""
        arrays = frozenset(None for group in self.groups if not group.is_scalar)
        return frozenset(group.dtype for group in self.groups) | arrays


@dataclasses.dataclass(frozen=True)
class Group:
    """Values of one type, side by side in the words.

    Attributes:
        dtype: Their type.
        carrier: The type that they travel as.
        start: Their first word.
        stop: The word after their last.
        shapes: Their shapes.
    """

    dtype: np.dtype[Any]
    carrier: np.dtype[Any]
    start: int
    stop: int
    shapes: tuple[tuple[int, ...], ...]

    @functools.cached_property
    def is_scalar(self) -> bool:
        """Whether they are all scalars."""
        return not any(self.shapes)

    def unpack(self, words: np.ndarray[Any, Any]) -> Iterable[Any]:
        """The values, from the words on the host."""
        carried = _from_words(words[..., self.start : self.stop], self.carrier)
        values = carried if self.carrier == self.dtype else carried.astype(self.dtype)
        if self.is_scalar and words.ndim == 1:
            return values  # scalars are what iterating over them makes
        arrays = []
        start = 0
        for shape in self.shapes:
            stop = start + math.prod(shape)
            arrays.append(values[..., start:stop].reshape((*words.shape[:-1], *shape))[()])
            start = stop
        return arrays


def pack_any(metrics: Mapping[str, Any]) -> Packed:
    """`pack`, but there may be no number in it."""
    names, values = flatten(metrics)
    by_type: dict[Any, list[int]] = {}
    for index, (_, value) in enumerate(values):
        by_type.setdefault(getattr(value, "dtype", None), []).append(index)
    constants = by_type.pop(None, [])
    words: list[Any] = [_jax().numpy.zeros(0, np.uint32)]
    groups = []
    start = 0
    for dtype, group in by_type.items():
        carrier = np.dtype(_CARRIERS.get(dtype.name, dtype))
        arrays = [values[index][1] for index in group]
        words.extend(_to_words(array.astype(carrier)) for array in arrays)
        stop = start + sum(len(each) for each in words[-len(group) :])
        groups.append(Group(dtype, carrier, start, stop, tuple(array.shape for array in arrays)))
        start = stop
    sent = [*itertools.chain(*by_type.values()), *constants]
    layout = Layout(
        names,
        tuple(groups),
        tuple(values[index][1] for index in constants),
        tuple(sent.index(index) for index in range(len(values))),
    )
    return Packed(_jax().numpy.concatenate(words), layout)


def flatten(metrics: Mapping[str, Any]) -> tuple[Names, list[tuple[str, Any]]]:
    """Take a mapping apart, in JAX's order, and check it.

    Returns:
        Its names, as in `Layout.names`; and each value with what messages call it: an array of a
        type that can be packed, or the text or None that it is.
    """
    if not isinstance(metrics, Mapping):
        raise TypeError(
            "metrics are a mapping of names to scalars, such as {'loss': loss}, not "
            f"{metrics!r:.99}; a named tuple's _asdict() is one"
        )
    values: list[tuple[str, Any]] = []
    return _flatten(metrics, "", values), values


def _flatten(metrics: Mapping[Any, Any], path: str, values: list[tuple[str, Any]]) -> Names:
    for name in metrics:
        if not isinstance(name, str):
            where = f"in {path.removesuffix('.')!r} " if path else ""
            raise TypeError(f"a metric's name {where}is a string, not {name!r}")
    names: list[Any] = []
    for name in sorted(metrics):
        value = metrics[name]
        if isinstance(value, Mapping):
            names.append((name, _flatten(value, f"{path}{name}.", values)))
        else:
            names.append(name)
            values.append((f"{path}{name}", _check(f"{path}{name}", value)))
    return tuple(names)


def _named(names: Names, values: Iterator[Any]) -> dict[str, Any]:
    """What `_flatten` flattened."""
    return {
        name if isinstance(name, str) else name[0]: next(values)
        if isinstance(name, str)
        else _named(name[1], values)
        for name in names
    }


def _check(path: str, value: Any) -> Any:
    if isinstance(value, str | None):
        return value
    jax = _jax()
    if not isinstance(value, jax.Array | np.ndarray | np.generic | bool | int | float):
        _refuse(path, f"is {value!r:.99}, but numbers, arrays, text, None and mappings are packed")
    if jax.numpy.issubdtype(jax.numpy.result_type(value), jax.dtypes.prng_key):
        _refuse(path, "is a PRNG key; take jax.random.key_data(key) if you mean its bits")
    try:
        array = jax.numpy.asarray(value)
    except (OverflowError, TypeError) as error:
        raise type(error)(f"metric {path!r}: {error}") from None
    if not any(jax.numpy.issubdtype(array.dtype, kind) for kind in (bool, np.integer, np.floating)):
        _refuse(path, f"is of type {array.dtype}, which can't be logged; convert it first")
    if not array.size:
        _refuse(path, f"is an empty array, of shape {array.shape}")
    if not _fits(value, array.dtype):
        _refuse(path, f"{value!r:.99} is beyond {array.dtype}; jax_enable_x64 gives 64 bits")
    return array


def _fits(value: Any, dtype: Any) -> bool:
    """Whether JAX, which has no 64-bit types by default, hasn't cut off an integer's upper bits."""
    if not isinstance(value, np.ndarray | np.generic) or value.dtype.kind not in "iu":
        return True
    return np.array_equal(value, value.astype(dtype))


def _refuse(path: str, reason: str) -> NoReturn:
    raise TypeError(f"metric {path!r}: {reason}")


def _to_words(array: Any) -> Any:
    """The bits of an array as a row of uint32."""
    unsigned = np.dtype(f"uint{min(8 * array.dtype.itemsize, 32)}")
    # Of 64 bits it makes two words, along a new last axis.
    words = _jax().lax.bitcast_convert_type(array, unsigned).astype(np.uint32)
    return replicated(words).reshape(-1)


def transfers_allowed() -> contextlib.AbstractContextManager[Any]:
    """Where numbers of ours go to the device, which `jax.transfer_guard` would refuse.

    In compiled code they are constants; outside, JAX sends them one by one.
    """
    jax = sys.modules.get("jax")
    return jax.transfer_guard_host_to_device("allow") if jax else contextlib.nullcontext()


def replicated(array: Any) -> Any:
    """The array, whole on every device if shardings are explicit: JAX joins no others."""
    jax = _jax()
    if jax.sharding.get_abstract_mesh().explicit_axes:
        return jax.sharding.reshard(array, jax.sharding.PartitionSpec())
    return array


def _from_words(words: np.ndarray[Any, Any], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """What `_to_words` made words of, along the last axis."""
    if dtype.itemsize == 8:
        low, high = words[..., ::2].astype(np.uint64), words[..., 1::2].astype(np.uint64)
        return (low | high << np.uint64(32)).view(dtype)
    if dtype.itemsize < 4:
        words = words.astype(f"uint{8 * dtype.itemsize}")
    return words.view(dtype)


@functools.cache
def _jax() -> ModuleType:
    """JAX, told what a `Packed` is: only now, for importing the logger must not import jax."""
    import jax  # noqa: PLC0415 - see above

    jax.tree_util.register_pytree_node(
        Packed,
        lambda packed: ((packed.words,), packed.layout),
        lambda layout, children: Packed(children[0], layout),
    )
    return jax
