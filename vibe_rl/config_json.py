"""The JSON of a saved config: from dataclasses, enums, arrays and the like to plain values."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import math
import os
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Any, cast

import numpy as np
import orjson

# JSON has no word for these numbers, so `inf` is written as {"_nonfinite": "inf"}.
_NONFINITE = "_nonfinite"


def encode_config(config: object) -> bytes:
    """Turn a config into indented JSON, from which `decode_config` gives plain values.

    Args:
        config: A dataclass, a mapping, a named tuple or an object with `to_dict()`. Inside, at any
            depth: these, and `None`, booleans, numbers, strings, sequences, sets, NumPy and JAX
            scalars and arrays, enums (their value), paths and dates (their text). A `float32` is
            written at the shortest text that reads back to it: `0.1`, not `0.10000000149011612`.

    Returns:
        UTF-8 text that ends in a newline.

    Raises:
        TypeError: If the config holds something that has no such form, for example a function;
            names the place: `config['optimizer']['schedule']`.
    """
    plain = _plain(config, "config")
    if not isinstance(plain, dict):
        kind = type(config).__name__
        raise TypeError(
            "a config is a dataclass, a mapping, a named tuple or an object with to_dict(); "
            f"got {kind}: {config!r}"
        )
    return orjson.dumps(plain, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def decode_config(text: bytes) -> dict[str, Any]:
    """Read what `encode_config` wrote.

    Args:
        text: The JSON.

    Returns:
        The config in plain values: `dict`, `list`, `str`, `int`, `float` (NaN and infinities
        included), `bool` and `None`.

    Raises:
        ValueError: If the text is no JSON object, or holds what `encode_config` doesn't write.
    """
    config = orjson.loads(text)
    if not isinstance(config, dict):
        raise ValueError(f"a config is a JSON object, not {text!r:.80}")  # noqa: TRY004 - as for other text
    try:
        return {name: _restore(value) for name, value in config.items()}
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _plain(value: Any, where: str) -> Any:  # noqa: PLR0911 - one return for each kind of value
    """Convert `value`, found at `where`. An enum comes first: an `IntEnum` is an int as well."""
    if isinstance(value, enum.Enum):
        return _plain(value.value, where)
    if value is None or isinstance(value, bool | int | float | str):
        return _plain_leaf(value, where)
    if isinstance(value, os.PathLike):
        return _plain_leaf(os.fsdecode(value), where)
    if isinstance(value, dt.date):
        return value.isoformat()
    if (mapping := _as_mapping(value)) is not None:
        return _plain_mapping(mapping, where)
    if isinstance(value, list | tuple):
        return [_plain(item, f"{where}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, AbstractSet):
        # A set has no order; sorting makes the same config the same text.
        return sorted((_plain(item, where) for item in value), key=repr)
    if hasattr(value, "__array__") and not isinstance(value, type):
        return _plain_array(value, where)
    raise TypeError(
        f"{where} is {value!r} of type {type(value).__name__}, which a config file can't hold; "
        "save a name or a number that stands for it"
    )


def _plain_leaf(value: Any, where: str) -> Any:
    """Convert a plain value or one of a subclass of it, which orjson refuses or takes wrongly."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {_NONFINITE: str(float(value))}
    leaf = int(value) if isinstance(value, int) else str.__str__(value)
    try:
        orjson.dumps(leaf)  # refuses more than 64 bits and lone surrogates, here with their place
    except TypeError as error:
        raise TypeError(f"{where} is {leaf!r}: {error}") from error
    return leaf


def _as_mapping(value: Any) -> Mapping[Any, Any] | None:
    """Return what has named fields as a mapping, anything else as None."""
    if isinstance(value, type):
        return None
    if hasattr(value, "to_dict"):
        return cast("Mapping[Any, Any]", value.to_dict())
    if dataclasses.is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return cast("Mapping[Any, Any]", value._asdict())
    return value if isinstance(value, Mapping) else None


def _plain_mapping(mapping: Mapping[Any, Any], where: str) -> dict[str, Any]:
    plain = {}
    for key, value in mapping.items():
        name = _plain(key, where)
        if not isinstance(name, str):
            raise TypeError(f"the key {key!r} in {where} is no string; use {str(key)!r}")
        if name == _NONFINITE:
            raise TypeError(f"the key {key!r} in {where} is reserved; use another name")
        plain[name] = _plain(value, f"{where}[{name!r}]")
    return plain


def _plain_array(value: Any, where: str) -> Any:
    """Convert an array: NumPy's, or JAX's, without importing JAX."""
    try:
        array = np.asarray(value)
    except (TypeError, RuntimeError) as error:  # a tracer, a PRNG key, a deleted buffer
        raise TypeError(f"{where} can't be read as an array: {error}") from error
    if array.ndim:
        return [_plain(item, f"{where}[{index}]") for index, item in enumerate(array)]
    scalar: Any = array[()]
    if isinstance(scalar, np.floating):  # by way of its text: float(np.float32(0.1)) is not 0.1
        return _plain(float(str(scalar)), where)
    if isinstance(scalar, np.datetime64 | np.timedelta64):
        return str(scalar)
    return _plain(array.item(), where)


def _restore(value: Any) -> Any:
    if isinstance(value, dict):
        if value.keys() == {_NONFINITE}:
            if value[_NONFINITE] not in ("nan", "inf", "-inf"):
                raise ValueError(f"{value!r:.80} is no number that isn't finite")
            return float(value[_NONFINITE])
        return {name: _restore(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_restore(item) for item in value]
    return value
