"""A signal handler may come at any place of a `write()` that defers: nothing is lost, or twice."""

import dis
import functools
import sys
import threading

import jax.numpy as jnp
import pytest

from vibe_rl.metrics import MetricsLogger, deferred, read_metrics, writer


class Interrupt(BaseException):
    """What a signal handler raises."""


class OopsError(ValueError):
    """Another such, which looks like what is wrong with a record."""


def _raise(logger):
    raise Interrupt


def _raise_value_error(logger):
    raise OopsError


def _flush_and_raise(logger):
    logger.flush()
    raise Interrupt


@functools.cache
def _where_handlers_run(code):
    """The places at which CPython runs signal handlers: after a call, and where a function begins.

    (It does so too where a loop goes back; those here call something each time.)
    """
    places, before = set(), ""
    for instruction in dis.get_instructions(code):
        if instruction.opname == "RESUME" or before.startswith("CALL"):
            places.add(instruction.offset)
        if instruction.opname != "CACHE":
            before = instruction.opname
    return places


def _interrupted(call, at, handler):
    """Call it, and have a handler come at the given place; whether there are so many."""
    passed = 0

    def trace(frame, event, arg):
        nonlocal passed
        if frame.f_code.co_filename not in (deferred.__file__, writer.__file__):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode" and frame.f_lasti in _where_handlers_run(frame.f_code):
            passed += 1
            if passed == at:
                sys.settrace(None)
                handler()
        return trace

    sys._getframe().f_trace_opcodes = True  # Python 3.12 looks for one such only in settrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(None)
    return passed >= at


@pytest.mark.parametrize("held", ["record", "batch"])
@pytest.mark.parametrize(
    "handler",
    [
        _raise,
        _raise_value_error,
        _flush_and_raise,
        lambda logger: logger.flush(),
        lambda logger: logger.close(),
        lambda logger: logger.write({"n": "from the handler"}),
    ],
    ids=["raises", "raises ValueError", "flushes and raises", "flushes", "closes", "writes"],
)
def test_a_handler_may_come_at_any_place(tmp_path, held, handler):
    """Nothing that `write()` had accepted is missing or there twice."""
    path, at, goes_on = tmp_path / "metrics.jsonl", 0, True
    while goes_on:
        at += 1
        path.unlink(missing_ok=True)
        logger = MetricsLogger(path, defer=1, queue_size=32)
        logger._deferred.log_ready = lambda: False  # the writer's thread would be first
        if held == "record":
            logger.write({"n": 0, "x": jnp.float32(1)})
            accepted = [0]
        else:
            logger.write_batch({"n": range(6), "x": jnp.ones(6)})  # in several blocks
            accepted = [0, 1, 2, 3, 4, 5]
        try:
            goes_on = _interrupted(
                functools.partial(logger.write, {"n": "new", "x": jnp.float32(2)}),
                at,
                functools.partial(handler, logger),
            )
            new = [["new"]]
        except (Interrupt, ValueError):  # of a logger that the handler has closed
            new = [[], ["new"]]
        logger.close()
        got = [record["n"] for record in read_metrics(path, strict=True)]
        got = [n for n in got if n != "from the handler"]
        assert got in [accepted + each for each in new], f"at place {at}"
        assert logger.stats.queued == 0
        # Only the new one, if the handler has closed the logger.
        assert logger.stats.dropped <= (got == accepted)
    assert at > 20


@pytest.mark.parametrize("overflow", ["drop_oldest", "drop_newest"])
@pytest.mark.parametrize(
    "handler",
    [_raise, _raise_value_error, lambda logger: logger.flush()],
    ids=["raises", "raises ValueError", "flushes"],
)
def test_what_is_dropped_is_counted_once_wherever_a_handler_comes(tmp_path, overflow, handler):
    path, at, goes_on = tmp_path / "metrics.jsonl", 0, True
    while goes_on:
        at += 1
        path.unlink(missing_ok=True)
        logger = MetricsLogger(path, defer=1, queue_size=4, overflow=overflow)
        logger._deferred.log_ready = lambda: False
        has_room = threading.Event()
        append = logger._writer._append
        logger._writer._append = functools.partial(_append_when, has_room, append)
        for n in range(12):
            logger.write({"n": n, "x": jnp.float32(1)})

        def handle(logger=logger, has_room=has_room):
            has_room.set()
            handler(logger)

        new = [1]
        try:
            goes_on = _interrupted(functools.partial(logger.write, {"n": 12}), at, handle)
        except (Interrupt, OopsError):
            new = [0, 1]
        has_room.set()
        logger.close()
        numbers = [record["n"] for record in read_metrics(path, strict=True)]
        assert numbers == sorted(set(numbers))
        assert logger.stats.written == len(numbers)
        assert logger.stats.written + logger.stats.dropped in [12 + each for each in new], at
    assert at > 20


def _append_when(has_room, append, lines):
    has_room.wait(60)
    return append(lines)
