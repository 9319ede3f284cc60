"""What a run has measured so far, as arrays."""

from collections.abc import Mapping

import numpy as np


class History:
    """Grows by a few records at a time.

    Each field is an array with one value for each record along its last axis; with several seeds,
    these are the first axis. The step of evaluations, which are fewer, is called `eval_step`.

    Args:
        arrays: What an earlier part of the run has measured.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray] | None = None) -> None:
        self._parts = {name: [values] for name, values in (arrays or {}).items()}

    def add(self, records: Mapping[str, np.ndarray]) -> None:
        """Take in records: each field has one value for each along its last axis."""
        for name, values in records.items():
            self._parts.setdefault(name, []).append(values)

    def add_evaluation(self, record: Mapping[str, np.ndarray]) -> None:
        """Take in the record of an evaluation: each field is one value, or one for each seed."""
        fields = {"eval_step" if name == "step" else name: record[name] for name in record}
        fields.pop("seed", None)
        self.add({name: values[..., np.newaxis] for name, values in fields.items()})

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything up to now."""
        return {name: self._array(name) for name in self._parts}

    def best_step(self) -> int | None:
        """The step of the best evaluation over all seeds, the first of equals; None without any."""
        if "eval_step" not in self._parts:
            return None
        step, mean = (self._array(name) for name in ("eval_step", "eval_return_mean"))
        mean = mean.reshape(-1, step.shape[-1]).mean(axis=0)
        best = np.argmax(np.where(np.isnan(mean), -np.inf, mean))
        return int(step[..., best].flat[0])

    def _array(self, name: str) -> np.ndarray:
        return np.concatenate(self._parts[name], axis=-1)
