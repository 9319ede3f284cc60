"""Device and NumPy values → host values: what a record may hold, and what each value becomes."""

from __future__ import annotations

import contextlib
import enum
import functools
import math
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime, time
from types import NoneType
from typing import Any

import numpy as np

from vibe_rl.metrics.jit.packing import Packed
from vibe_rl.metrics.unloggable import (
    UnloggableError,
    refuse,
    refuse_masked,
    refuse_tracer,
    unreadable,
)


def host_record(record: Mapping[str, Any] | Packed) -> dict[str, Any]:
    """Turn a record's values into host values that `jsonl.encode` takes as they are.

    The row is a snapshot: nothing in it is shared with the caller, or with a device's buffer.

    Raises:
        TypeError: If `record` is no mapping, or a value is of a kind that the file can't hold.
        ValueError: If a value can't be read from here, such as a donated JAX buffer.
    """
    if type(record) is dict:
        if _are_host_scalars(map(type, record.values())):  # nothing to convert: no loop
            return record.copy()
    elif not isinstance(record, Mapping | Packed):
        raise TypeError(
            f"a record is a mapping of names to values, such as {{'loss': 0.4}}, not {record!r:.99}"
        )
    try:
        return _packed(record) if isinstance(record, Packed) else _mapping(record)
    except UnloggableError as error:
        raise error.public() from error.__cause__


def host_value(value: Any) -> Any:
    """Turn one value into a host value, as `host_record` does with each.

    Raises:
        UnloggableError: If it can't be.
    """
    convert = _CONVERTERS.get(type(value), _first_of_its_type)
    return value if convert is None else convert(value)


def host_array(value: Any) -> np.ndarray[Any, Any] | None:
    """A JAX or NumPy array as a NumPy array, shared where possible; None if it is something else.

    Raises:
        UnloggableError: If it can't be read from here.
    """
    if isinstance(value, np.ndarray):
        return np.asarray(value)
    if not is_on_device(value):
        return None
    try:
        return _asarray(value)
    except (RuntimeError, TypeError, ValueError) as error:
        raise unreadable(value, error) from error


def is_on_device(value: Any) -> bool:
    """Whether it is a JAX array: neither a tracer nor anything else."""
    if type(value) not in _CONVERTERS:
        _CONVERTERS[type(value)] = _converter_for(value)
    return _CONVERTERS[type(value)] is _jax_array


def check_readable(array: Any) -> None:
    """Check all of a JAX array that reading it would, but without waiting for its value.

    Raises:
        UnloggableError: If it can't be read from here, or can't be logged.
    """
    try:
        readable = not array.is_deleted() and (
            array.is_fully_addressable or array.is_fully_replicated
        )
        host_value(np.zeros((), array.dtype)[()])
    except TypeError as error:  # the dtype is JAX's own: keys
        raise unreadable(array, error) from error
    if not readable:
        raise unreadable(array, ValueError("not here"))


def check_single(packed: Packed) -> None:
    """Check that a packed mapping is one record.

    Raises:
        UnloggableError: If `scan` or `vmap` has stacked many.
    """
    stacked = np.shape(packed.words)[:-1]
    if stacked:
        reason = f"holds many records, stacked to shape {stacked}: give it to write_batch()"
        raise UnloggableError(ValueError, reason)


def start_copies(values: Iterable[Any]) -> None:
    """Start bringing JAX arrays among the values to the host, where that takes time.

    Reading an array on a GPU or a TPU waits for a transfer; transfers that were all started before
    the first is waited for overlap. On a CPU there is nothing to transfer.
    """
    for value in values:
        if type(value) in _COPIED_AHEAD:
            with contextlib.suppress(RuntimeError):  # reading it says what is wrong with it
                value.copy_to_host_async()


def unpack(packed: Packed) -> dict[str, Any]:
    """Bring a packed mapping to the host, stacked or not, in one transfer.

    Its arrays are shared with the device where possible.

    Raises:
        UnloggableError: If it can't be read from here.
    """
    words = host_array(packed.words)
    return refuse_tracer(packed.words) if words is None else packed.layout.unpack(words)


def host_words(packed: Packed) -> np.ndarray[Any, Any]:
    """The words of one packed record, shared with the device where possible.

    Raises:
        TypeError: If they can't be read from here.
        ValueError: Likewise; or if `scan` or `vmap` has stacked many records.
    """
    try:
        check_single(packed)
        words = host_array(packed.words)
        return refuse_tracer(packed.words) if words is None else words
    except UnloggableError as error:
        raise error.public() from error.__cause__


def _packed(packed: Packed) -> dict[str, Any]:
    check_single(packed)
    row = unpack(packed)
    # Scalars of these types stay as they are, which saves a third of the time to look at each.
    return row if packed.layout.dtypes <= EXACT_DTYPES else _mapping(row)


def _mapping(mapping: Mapping[str, Any]) -> dict[str, Any]:
    row = {}
    name = value = None
    try:
        if _COPIED_AHEAD:
            start_copies(mapping.values())
        # This loop is most of what write() costs: scalars, on a device or not, get no call
        for name, value in mapping.items():
            if type(value) in _DEVICE_ARRAYS:
                value = _asarray(value)[()]  # noqa: PLW2901 - what it holds
            row[name] = value if type(value) in _HOST_SCALARS else host_value(value)
    except UnloggableError as error:
        error.path.append(str(name))
        raise
    except RecursionError:
        deep = UnloggableError(ValueError, "is nested too deeply, or contains itself")
        deep.path.append(str(name))
        raise deep from None
    except (RuntimeError, TypeError, ValueError) as error:
        if type(value) not in _DEVICE_ARRAYS:
            raise
        reason = unreadable(value, error)
        reason.path.append(str(name))
        raise reason from error
    return row


def _sequence(values: list[Any] | tuple[Any, ...]) -> list[Any]:
    row = []
    try:
        for value in values:
            row.append(host_value(value))  # noqa: PERF401 - its length tells where an error stands
    except UnloggableError as error:
        error.path.append(str(len(row)))
        raise
    return row


def _first_of_its_type(value: Any) -> Any:
    """Find out how values of this type are converted, remember it, and convert this one."""
    convert = _converter_for(value)
    _CONVERTERS[type(value)] = convert
    return value if convert is None else convert(value)


def _converter_for(value: Any) -> Callable[[Any], Any] | None:
    # A value can only be a JAX array if somebody has imported jax already.
    jax = sys.modules.get("jax")
    if jax is not None and isinstance(value, jax.Array):
        if isinstance(value, jax.core.Tracer):
            return refuse_tracer
        if isinstance(value.dtype, np.dtype):  # JAX's own are those of keys
            _DEVICE_ARRAYS.add(type(value))
            if jax.default_backend() != "cpu":
                _COPIED_AHEAD.add(type(value))
        return _jax_array
    for kind, convert in _SUBCLASSES:
        if isinstance(value, kind):
            return convert
    return refuse


def _jax_array(value: Any) -> Any:
    try:
        # Of all ways to the host the quickest (`item()` takes twice as long, `float()` seven times,
        # `jax.device_get()` fifteen times). `[()]` makes a scalar of a 0-d array and keeps its
        # type, and with it float32's own text.
        host = _asarray(value)[()]
    except (RuntimeError, TypeError, ValueError) as error:
        raise unreadable(value, error) from error
    return host_value(host)


def _array(value: np.ndarray[Any, Any]) -> Any:
    """An array of one element is a scalar; others stay arrays where orjson writes them exactly."""
    if value.size == 1:
        return host_value(value.reshape(())[()])
    native = value.dtype.newbyteorder("=")
    if native in EXACT_DTYPES:
        return np.array(value, native, order="C")
    return _nested(value)


def _nested(value: np.ndarray[Any, Any]) -> list[Any]:
    """Lists in the array's own shape: rows of one element stay lists."""
    if value.ndim == 1:
        return [host_value(element) for element in value]
    return [_nested(row) for row in value]


def _narrow(value: np.generic) -> float | int:
    """A scalar that orjson doesn't know or would widen: int4, float8, bfloat16, float16, …."""
    if value.dtype.name.startswith(("int", "uint")):
        return int(value)
    if "float" in value.dtype.name and value.dtype.itemsize <= 2:
        number = float(value)
        return _shortest(number, value.dtype) if number and math.isfinite(number) else number
    return refuse(value)


@functools.lru_cache(maxsize=65_536)
def _shortest(number: float, dtype: np.dtype[Any]) -> float:
    """The number of fewest digits that reads back to the same value in `dtype`."""
    with np.errstate(over="ignore"):  # 65024, a float16, is not 7e4, which is none
        for digits in range(1, 17):
            short = float(f"{number:.{digits}g}")
            if dtype.type(short) == number:
                return short
    return number


def _enum(value: enum.Enum) -> str | int | float:
    """Its value where that is text or a number by design (`StrEnum`, `IntEnum`), else its name."""
    if isinstance(value, int | float) or isinstance(value.value, str):
        return value.value  # type: ignore[no-any-return]
    return value.name


EXACT_DTYPES = frozenset(
    np.dtype(kind)
    for kind in (
        *(np.bool_, np.int8, np.int16, np.int32, np.int64),
        *(np.uint8, np.uint16, np.uint32, np.uint64, np.float32, np.float64),
    )
)

_asarray = np.asarray

# Types of what goes into a row as it is.
_HOST_SCALARS: frozenset[type] = frozenset(
    (float, int, str, bool, NoneType, *(dtype.type for dtype in EXACT_DTYPES))
)

_are_host_scalars = _HOST_SCALARS.issuperset

# JAX's array type, once one was met; also on a platform whose memory isn't the host's.
_DEVICE_ARRAYS: set[type] = set()
_COPIED_AHEAD: set[type] = set()

# Type → how its values are converted; None: as they are. Grows by one entry for each type met.
_CONVERTERS: dict[type, Callable[[Any], Any] | None] = {
    **dict.fromkeys(_HOST_SCALARS),
    dict: _mapping,
    list: _sequence,
    tuple: _sequence,
    np.ndarray: _array,
    Packed: _packed,
}

# For types that are none of the above: the first that fits.
_SUBCLASSES: tuple[tuple[type | tuple[type, ...], Callable[[Any], Any]], ...] = (
    (enum.Enum, _enum),
    (str, str),
    (float, float),
    (int, int),
    (Mapping, _mapping),
    ((list, tuple), _sequence),
    ((datetime, date, time), lambda moment: moment.isoformat()),
    (os.PathLike, os.fsdecode),
    (np.ma.MaskedArray, refuse_masked),
    (np.ndarray, lambda array: _array(np.asarray(array))),
    (np.datetime64, str),
    (np.generic, _narrow),
)
