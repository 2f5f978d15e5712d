"""
What does each Python operator of the Flink job do? Read a line; keep one user's queue in one scenario.

What they compute with is imported when a worker opens them, not when the job is submitted: it would hold up
the start of a job manager by seconds.
"""

import builtins
import json
import logging
import time
from collections.abc import Iterator
from importlib import import_module
from types import ModuleType

from pyflink.common import Row, Types
from pyflink.datastream import KeyedProcessFunction, OutputTag, ProcessFunction, RuntimeContext, TimeDomain
from pyflink.datastream.state import ValueStateDescriptor

from nearline.mnr_config import JobConfig

METRIC_GROUP = "mnr"
LOGGER = logging.getLogger(__name__)


class ReadEvents(ProcessFunction):
    """A line -> ((key, (request, time, words)), timestamp); a refused one -> the side output."""

    def __init__(self, config: JobConfig, tag: OutputTag):
        """Keep what can be sent to a worker."""
        self._config, self._tag = config.model_dump_json(), tag

    def open(self, runtime_context: RuntimeContext) -> None:
        """Set up counters."""
        mnr = _compiled_functions()
        from nearline import mnr_events

        config = JobConfig.model_validate_json(self._config)
        self._read, self._bad_event = mnr_events.read_event, mnr_events.BadEvent
        self._mnr = mnr.MNRConfig(**config.mnr)
        self._most_ahead = round(config.stream.most_ahead_seconds * 1e6)
        group = runtime_context.get_metrics_group().add_group(METRIC_GROUP)
        names = ("events", "unknown_items", "bad_scores", "repeated_items", *mnr_events.REASONS)
        self._count = {name: group.counter(name) for name in names}

    def process_element(self, line: str, context: ProcessFunction.Context) -> Iterator:
        """Read one line."""
        self._count["events"].inc()
        try:
            event = self._read(line, self._mnr, time.time_ns() // 1000 + self._most_ahead)
        except self._bad_event as error:
            self._count[error.reason].inc()
            yield self._tag, json.dumps({"reason": error.reason, "message": str(error), "line": line})
            return
        for name, n in zip(("unknown_items", "bad_scores", "repeated_items"), event.cleaning, strict=True):
            if n:
                self._count[name].inc(n)
        visit = event.visit
        value = (visit.request_id, visit.event_time, visit.item_ids.tobytes() + visit.category_ids.tobytes())
        yield Row(f"{event.user_id}:{event.scenario}", value), visit.event_time // 1000


class QueueAndScore(KeyedProcessFunction):
    """
    Visits of one user in one scenario -> the list in the store. Gives nothing on.

    The state is (queue, time of the event timer that will look whether the queue is idle), pickled as a
    whole: thread mode cannot read an absent array.
    """

    def __init__(self, config: JobConfig):
        """Keep what can be sent to a worker."""
        self._config = config.model_dump_json()

    def open(self, runtime_context: RuntimeContext) -> None:
        """Set up state, counters and the way to the store."""
        import numpy as np

        mnr = _compiled_functions()
        from nearline.mnr_writer import ListWriter
        from nearline.store import open_store

        config = JobConfig.model_validate_json(self._config)
        self._functions, self._mnr, self._words = mnr, mnr.MNRConfig(**config.mnr), np.frombuffer
        self._idle_milliseconds = self._mnr.idle_seconds * 1000
        self._interval = max(1, round(config.stream.write_seconds * 1000))
        self._writer = ListWriter(lambda: open_store(config.store_url))
        self._state = runtime_context.get_state(ValueStateDescriptor("queue", Types.PICKLED_BYTE_ARRAY()))
        group = runtime_context.get_metrics_group().add_group(METRIC_GROUP)
        names = ("late", "expired", "forgotten", "written", "store_failures")
        self._count = {name: group.counter(name) for name in names}
        self._outcomes = [group.counter(outcome.name.lower()) for outcome in mnr.Outcome]

    def process_element(self, value: tuple, context: KeyedProcessFunction.Context) -> Iterator:
        """Put a visit into its queue; the list waits for the next write."""
        request_id, event_time, packed = value
        timers = context.timer_service()
        watermark = timers.current_watermark()
        if event_time // 1000 <= watermark:
            self._count["late"].inc()
            if event_time // 1000 + self._idle_milliseconds <= watermark:
                self._count["expired"].inc()
                return
        words = self._words(bytes(packed), "<i8")
        half = len(words) // 2
        visit = self._functions.Visit(request_id, event_time, words[:half], words[half:])
        queue, idle_timer = self._state.value() or (None, None)
        queue, outcome = self._functions.insert(queue, visit, self._mnr)
        self._outcomes[outcome].inc()
        if outcome != self._functions.Outcome.KEPT:
            return
        if idle_timer is None:
            idle_timer = self._idle_at(queue)
            timers.register_event_time_timer(idle_timer)
        self._state.update((queue, idle_timer))
        self._let_wait(context, queue)
        return
        yield

    def on_timer(self, timestamp: int, context: KeyedProcessFunction.OnTimerContext) -> Iterator:
        """Write what waits, or forget an idle queue."""
        from nearline.mnr_writer import Settled

        if context.time_domain() == TimeDomain.EVENT_TIME:
            self._look_whether_idle(context)
        else:
            settled = self._writer.settle(context.get_current_key())
            if settled == Settled.UNKNOWN and (stored := self._state.value()):
                self._let_wait(context, stored[0])
            elif settled == Settled.WAITING:
                self._set_timer(context)
        self._count_writes()
        return
        yield

    def close(self) -> None:
        """Let go of the store."""
        self._writer.close()

    def _let_wait(self, context: KeyedProcessFunction.Context, queue: bytes) -> None:
        self._put(context.get_current_key(), queue, queue)
        self._set_timer(context)

    def _put(self, key: str, queue: bytes, shown: bytes | None) -> None:
        """Let the list of ``shown`` wait, with the time of ``queue``."""
        user, _, scenario = key.partition(":")
        scored = self._functions.score(shown, self._mnr)
        self._writer.put(key, scenario, int(user), self._functions.newest_time(queue), scored)

    def _set_timer(self, context: KeyedProcessFunction.Context) -> None:
        """Set one timer of the key at the end of the current interval, where the timers of all keys meet."""
        timers = context.timer_service()
        now = timers.current_processing_time()
        timers.register_processing_time_timer((now // self._interval + 1) * self._interval)

    def _idle_at(self, queue: bytes) -> int:
        return self._functions.newest_time(queue) // 1000 + self._idle_milliseconds

    def _look_whether_idle(self, context: KeyedProcessFunction.OnTimerContext) -> None:
        """Forget the queue, here and in the store, or look again later."""
        from nearline.mnr_writer import Settled

        stored = self._state.value()
        if not stored:
            return
        queue, timers, key = stored[0], context.timer_service(), context.get_current_key()
        idle_timer = self._idle_at(queue)
        if idle_timer <= timers.current_watermark():
            self._put(key, queue, None)
            if self._writer.settle(key) == Settled.WRITTEN:
                self._count["forgotten"].inc()
                self._state.clear()
                return
            idle_timer = timers.current_watermark() + 1
        timers.register_event_time_timer(idle_timer)
        self._state.update((queue, idle_timer))

    def _count_writes(self) -> None:
        writer = self._writer
        if writer.n_written:
            self._count["written"].inc(writer.n_written)
        if writer.n_failures:
            self._count["store_failures"].inc(writer.n_failures)
            LOGGER.warning(writer.last_failure)
        writer.n_written = writer.n_failures = 0


def _compiled_functions() -> ModuleType:
    """
    Import MNR's functions.

    In process mode Beam has put a method in the place of ``print``, which numba looks for in its module and
    does not find; so the real one is back while numba is imported.
    """
    replaced = builtins.print
    builtins.print = getattr(replaced.__self__, "_print", replaced)
    try:
        import_module("numba")
    finally:
        builtins.print = replaced
    return import_module("models.mnr")
