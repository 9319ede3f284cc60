"""Handing a metrics file's records to a backend, whatever errors it raises."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

from vibe_rl.metrics.backends.protocol import LogBackend, method_of
from vibe_rl.metrics.jsonl import decode, decode_lines
from vibe_rl.metrics.lines import Line, Lines, StartTimes

_log = logging.getLogger("vibe_rl")

# The pauses before a record that raised is tried again.
_RETRY_S = (1e-3, 10e-3, 100e-3)
# The pauses while its neighbours raise as well: the first, and the longest.
_DOWN_S = (1.0, 30.0)
# If a record and so many after it raise, the backend is down.
_NEIGHBOURS = 2


class Delivery:
    """Hands lines to a backend, and gets over its errors.

    A record that raises is tried again, after growing pauses. If the backend takes a neighbour, the
    record itself is at fault: it counts as failed, and is passed over. (The file's last record has
    no neighbour but the one before, which is tried once somebody waits.) If the backend raises for
    three in a row, it is down: no record is passed over until it is back.

    Once a record was passed over, later ones that raise the same type of error are tried again only
    once before their neighbours are: where many are at fault, the pauses would hold up the others.

    Args:
        backend: Gets the records. Its `log_at()` is used in place of `log()` if it has one.
        name: What messages call it.
        lines: The lines to deliver.
        times: When the loggers that wrote them were opened.
        pause: Sleeps so many seconds, or less; False ends the tries.
        is_awaited: Says whether somebody waits for the file's end.

    Attributes:
        logged: Records that the backend took.
        failed: Records that were passed over.
    """

    def __init__(
        self,
        backend: LogBackend,
        name: str,
        lines: Lines,
        times: StartTimes,
        *,
        pause: Callable[[float], bool],
        is_awaited: Callable[[], bool],
    ) -> None:
        self._log = backend.log
        self._log_at = method_of(backend, "log_at")
        self._name = name
        self._lines = lines
        self._times = times
        self._pause = pause
        self._is_awaited = is_awaited
        # The latest that the backend took: a `Line`, less what it costs to make one.
        self._taken_last: tuple[bytes, int, int] | None = None
        self.logged = self.failed = 0
        self._errors: Counter[type[BaseException]] = Counter()
        self._hopeless: set[type[BaseException]] = set()  # errors that no second try has mended
        self._error: type[BaseException] = Exception  # the latest

    def deliver(self, end: int) -> Iterator[bool]:
        """Hand over the lines up to this byte, one by one.

        Yields:
            After each line, True; or, if `pause` ended the tries before the backend took it, False.
        """
        lines = self._lines
        while lines.byte < end and (texts := lines.peek_some()):
            for text, record in zip(texts, _decode_some(texts), strict=True):
                if record is None:
                    if text.strip():
                        _log.warning(
                            "byte %d: no record; passed over by %s", lines.byte, self._name
                        )
                elif self._take(record, lines.byte, lines.ordinal):
                    self.logged += 1
                    self._taken_last = text, lines.byte, lines.ordinal
                else:
                    yield self._insist(Line(text, lines.byte, lines.ordinal))
                    break  # for it may have got over several
                lines.pass_one(text)
                yield True

    def call(
        self, name: str, method: Callable[..., object], *args: Any, again: bool = False
    ) -> bool:
        """Call a method of the backend; False if it raised, which is logged and counted.

        Args:
            name: What messages call the method.
            method: The method.
            *args: Its arguments.
            again: Whether it is called again sooner or later.
        """
        try:
            method(*args)
        except BaseException as error:  # noqa: BLE001 - whatever it raises harms nobody else
            self._note(error, f"in {name}()", again=again)
            return False
        return True

    def sum_up(self) -> None:
        """Log what errors there were, if any came more than once."""
        if self.failed or self._errors.total() > len(self._errors):
            kinds = ", ".join(f"{kind.__name__} {n} times" for kind, n in self._errors.items())
            _log.error("%s raised %s; %d records failed", self._name, kinds, self.failed)

    def _take(self, record: dict[str, Any], byte: int, ordinal: int) -> bool:
        step = _step(record)
        time = 0.0 if self._log_at is None else self._times.of(byte, record.get("wall_time"))
        try:
            if self._log_at is None:
                self._log(record, step)
            else:
                self._log_at(record, step, time=time, ordinal=ordinal)
        except BaseException as error:  # noqa: BLE001 - whatever it raises harms nobody else
            self._note(error, f"at step {step}", again=True)
            return False
        return True

    def _taken(self, line: Line) -> None:
        self.logged += 1
        self._taken_last = line
        self._lines.pass_over(line)

    def _insist(self, line: Line) -> bool:
        """Get over a record that raised."""
        for pause in _RETRY_S[: 1 if self._error in self._hopeless else None]:
            if not self._pause(pause):
                return False
            if self._try_again(line):
                self._taken(line)
                return True
        seconds, longest = _DOWN_S
        is_down = False
        while not self._get_over(line):
            if (
                not is_down
                and len(list(islice(self._neighbours(line), _NEIGHBOURS))) == _NEIGHBOURS
            ):
                is_down = True
                _log.error(
                    "%s is down: it raises for record after record. They are kept in the file, and "
                    "delivered when it is back",
                    self._name,
                )
            if not self._pause(seconds):
                return False
            seconds = min(2 * seconds, longest)
        if is_down:
            _log.warning("%s is back", self._name)
        return True

    def _get_over(self, line: Line) -> bool:
        """Try a record and its neighbours; False if the backend takes none of them."""
        failed: list[Line] = []
        for each in (line, *islice(self._neighbours(line), _NEIGHBOURS)):
            if self._try_again(each):
                self._pass_over(failed, each)
                return True
            failed.append(each)
        if len(failed) > _NEIGHBOURS or not self._is_awaited():
            return False
        # Nothing follows, and somebody waits: the record before has to do as a neighbour.
        if self._taken_last is None or not self._try_again(Line(*self._taken_last)):
            return False
        for each in failed:
            if self._try_finally(each):
                break
        return True

    def _pass_over(self, failed: list[Line], taken: Line) -> None:
        """Pass over the records before one that the backend took."""
        for line in failed:
            if self._try_finally(line):
                return  # what follows is delivered in order, `taken` a second time
        self._taken(taken)

    def _try_finally(self, line: Line) -> bool:
        """Try a record for the last time, for the backend may be back only now."""
        if self._try_again(line):
            self._taken(line)
            return True
        self._hopeless.add(self._error)
        self.failed += 1
        self._lines.pass_over(line)
        return False

    def _try_again(self, line: Line) -> bool:
        # Decoded anew, for a record is the backend's to change.
        return self._take(decode(line.text), line.byte, line.ordinal)

    def _neighbours(self, line: Line) -> Iterator[Line]:
        following = self._lines.after(line)
        while following is not None:
            if _decode(following.text) is not None:
                yield following
            following = self._lines.after(following)

    def _note(self, error: BaseException, where: str, *, again: bool) -> None:
        """Log the first error of its type."""
        self._error = type(error)
        self._errors[self._error] += 1
        if self._errors[self._error] == 1:
            _log.error(
                "%s raised %s %s; %sthe file and other backends go on",
                self._name,
                self._error.__name__,
                where,
                "it is tried again, and " if again else "",
                exc_info=error,
            )


def _decode_some(texts: list[bytes]) -> Sequence[dict[str, Any] | None]:
    """The records that these lines hold; None for a line that is none."""
    records = decode_lines(b"\n".join([*texts, b""]), len(texts))
    return [_decode(text) for text in texts] if records is None else records


def _decode(text: bytes) -> dict[str, Any] | None:
    try:
        return decode(text)
    except ValueError:
        return None


def _step(record: dict[str, Any]) -> int | None:
    step = record.get("step")
    if type(step) is float and step.is_integer():
        return int(step)
    return step if type(step) is int else None
