"""Pickling for a process that never imports JAX: host values only, and what it can import."""

from __future__ import annotations

import io
import pickle
import sys
from typing import Any

import numpy as np


def dumps(value: Any) -> bytes:
    """Pickle a value; JAX arrays in it become NumPy's, wherever they stand.

    Raises:
        TypeError: If something in it can't be pickled, or could only be read back by a process that
            runs this process's script or imports JAX; says what.
    """
    buffer = io.BytesIO()
    try:
        _HostPickler(buffer, protocol=pickle.HIGHEST_PROTOCOL).dump(value)
    except _RefusedError as error:
        raise TypeError(str(error)) from None
    except Exception as error:
        raise TypeError(
            f"can't be sent to a process of its own: {error}; pass plain values, and functions and "
            "classes from the top level of a module that can be imported"
        ) from error
    return buffer.getvalue()


class _RefusedError(TypeError):
    pass


class _HostPickler(pickle.Pickler):
    def reducer_override(self, obj: Any) -> Any:
        jax = sys.modules.get("jax")
        if jax is not None and isinstance(obj, jax.Array):
            return np.asarray(obj)[()].__reduce__()
        # What is pickled as a name: the other process imports its module.
        if isinstance(obj, type) or callable(obj):
            module = str(getattr(obj, "__module__", None))
            name = getattr(obj, "__qualname__", None) or repr(obj)
            if module in ("__main__", "__mp_main__"):
                raise _RefusedError(
                    f"{name} is defined in the script that runs, which a process of its own can't "
                    "import; put it into a module, or pass plain values in its place"
                )
            if module.partition(".")[0] in ("jax", "jaxlib"):
                raise _RefusedError(
                    f"{module}.{name} would make a process of its own import JAX, and perhaps "
                    "take the accelerator; pass its name or a NumPy equivalent in its place"
                )
        return NotImplemented
