"""
What does Flink run? Lines -> visits -> one queue per (user, scenario) -> lists in the online store.

    source -> read events -> watermarks -> by (user, scenario) -> queues and scores -> online store
                   \\-> refused events, with the reason                \\-> counters

Runs in Flink's own environment: ``python -m nearline.mnr_job job.json``. A list is written some milliseconds after
its event, together with others, by a timer of its key. Timers are part of a checkpoint, so what a killed process
had gathered is made again; the store lets no older list win. In one thread there is at most one Python operator:
two would each have a Python thread state, and compiled code would wait for the other's for ever. So reading an
event gives its key and timestamp as well, Java classes of PyFlink do the rest, and the refused, whose stream begins
with a Python operator, have a thread of their own.
"""

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from pyflink.common import Configuration, Duration, Row, Types, WatermarkStrategy
from pyflink.common.serialization import Encoder, SimpleStringSchema
from pyflink.datastream import (
    KeyedProcessFunction,
    OutputTag,
    ProcessFunction,
    RuntimeContext,
    StreamExecutionEnvironment,
    TimeDomain,
)
from pyflink.datastream.connectors.file_system import FileSink, FileSource, RollingPolicy, StreamFormat
from pyflink.datastream.data_stream import DataStream, KeyedStream
from pyflink.datastream.state import ValueStateDescriptor
from pyflink.java_gateway import get_gateway

from models.mnr import MNRConfig, Outcome, Visit, insert, newest_time, score
from nearline.mnr_config import JobConfig, MNRStreamConfig
from nearline.mnr_events import REASONS, BadEvent, read_event
from nearline.mnr_writer import ListWriter, Settled
from nearline.store import open_store

JOB_NAME = "mnr"
GROUP = "mnr"
IDLE_SOURCE_SECONDS = 10
"""A source without events for so long no longer holds the watermark back."""


class ReadEvents(ProcessFunction):
    """A line -> ((key, (request, time, words)), timestamp); a refused one -> the side output."""

    def __init__(self, config: JobConfig, tag: OutputTag):
        """Keep what can be sent to a worker."""
        self._config, self._tag = config.model_dump_json(), tag

    def open(self, runtime_context: RuntimeContext) -> None:
        """Set up counters."""
        config = JobConfig.model_validate_json(self._config)
        self._mnr = MNRConfig(**config.mnr)
        self._most_ahead = round(config.stream.most_ahead_seconds * 1e6)
        group = runtime_context.get_metrics_group().add_group(GROUP)
        names = ("events", "unknown_items", "bad_scores", "repeated_items", *REASONS)
        self._count = {name: group.counter(name) for name in names}

    def process_element(self, line: str, context: ProcessFunction.Context) -> Iterator:
        """Read one line."""
        self._count["events"].inc()
        try:
            event = read_event(line, self._mnr, time.time_ns() // 1000 + self._most_ahead)
        except BadEvent as error:
            self._count[error.reason].inc()
            yield self._tag, json.dumps({"reason": error.reason, "message": str(error), "line": line})
            return
        for name, n in zip(("unknown_items", "bad_scores", "repeated_items"), event.cleaning, strict=True):
            if n:
                self._count[name].inc(n)
        visit = event.visit
        words = visit.item_ids.tobytes() + visit.category_ids.tobytes()
        value = (visit.request_id, visit.event_time, words)
        yield Row(f"{event.user_id}:{event.scenario}", value), visit.event_time // 1000


class QueueAndScore(KeyedProcessFunction):
    """Visits of one user in one scenario -> the list in the store."""

    def __init__(self, config: JobConfig):
        """Keep what can be sent to a worker."""
        self._config = config.model_dump_json()

    def open(self, runtime_context: RuntimeContext) -> None:
        """Set up state, counters and the way to the store."""
        config = JobConfig.model_validate_json(self._config)
        self._mnr = MNRConfig(**config.mnr)
        self._idle_milliseconds = self._mnr.idle_seconds * 1000
        self._wait = max(1, round(config.stream.write_seconds * 1000))
        self._writer = ListWriter(lambda: open_store(config.store_url))
        # The queue and the time of the timer that will look whether it is idle.
        self._state = runtime_context.get_state(ValueStateDescriptor("queue", Types.PICKLED_BYTE_ARRAY()))
        group = runtime_context.get_metrics_group().add_group(GROUP)
        names = ("kept", "duplicate", "too_old", "late", "expired", "forgotten", "written", "store_failures")
        self._count = {name: group.counter(name) for name in names}
        self._outcomes = {
            Outcome.KEPT: self._count["kept"],
            Outcome.DUPLICATE: self._count["duplicate"],
            Outcome.TOO_OLD: self._count["too_old"],
        }

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
        words = np.frombuffer(bytes(packed), np.int64)
        visit = Visit(request_id, event_time, words[: len(words) // 2], words[len(words) // 2 :])
        queue, idle_timer = self._state.value() or (None, None)
        queue, outcome = insert(queue, visit, self._mnr)
        self._outcomes[outcome].inc()
        if outcome != Outcome.KEPT:
            return
        if idle_timer is None:
            idle_timer = newest_time(queue) // 1000 + self._idle_milliseconds
            timers.register_event_time_timer(idle_timer)
        self._state.update((queue, idle_timer))
        self._let_wait(context, queue)
        return
        yield

    def on_timer(self, timestamp: int, context: KeyedProcessFunction.OnTimerContext) -> Iterator:
        """Write what waits, or forget an idle queue."""
        if context.time_domain() == TimeDomain.EVENT_TIME:
            self._look_whether_idle(context)
        else:
            key = context.get_current_key()
            settled = self._writer.settle(key)
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

    def _let_wait(self, context, queue: bytes) -> None:
        user, _, scenario = context.get_current_key().partition(":")
        self._writer.put(
            context.get_current_key(), scenario, int(user), newest_time(queue), score(queue, self._mnr)
        )
        self._set_timer(context)

    def _set_timer(self, context) -> None:
        """Set one timer of the key at the end of the current interval, where all timers meet."""
        timers = context.timer_service()
        timers.register_processing_time_timer(
            (timers.current_processing_time() // self._wait + 1) * self._wait
        )

    def _look_whether_idle(self, context) -> None:
        """Forget the queue, here and in the store, or set the next timer."""
        stored = self._state.value()
        if not stored:
            return
        queue, _ = stored
        timers = context.timer_service()
        idle_timer = newest_time(queue) // 1000 + self._idle_milliseconds
        if idle_timer <= timers.current_watermark():
            key = context.get_current_key()
            user, _, scenario = key.partition(":")
            self._writer.put(key, scenario, int(user), newest_time(queue), score(None, self._mnr))
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
            print(f"mnr: {writer.last_failure}", file=sys.stderr, flush=True)
        writer.n_written = writer.n_failures = 0


def build(environment: StreamExecutionEnvironment, config: JobConfig) -> None:
    """Wire the job; the operators' ids stay, so that a savepoint fits a later version."""
    refused = OutputTag("refused", Types.STRING())
    value = Types.TUPLE([Types.LONG(), Types.LONG(), Types.PRIMITIVE_ARRAY(Types.BYTE())])
    keyed_value = Types.ROW([Types.STRING(), value])
    events = (
        _lines(environment, config.stream)
        .process(ReadEvents(config, refused), Types.TUPLE([keyed_value, Types.LONG()]))
        .name("read events")
        .uid("read")
    )
    _by_key(events, keyed_value, value, config.stream.lateness_seconds).process(
        QueueAndScore(config), Types.INT()
    ).name("queue and score").uid("queue").sink_to(_nothing()).name("nothing").uid("nothing")
    events.get_side_output(refused).start_new_chain().name("refused events").uid("refused").sink_to(
        FileSink.for_row_format(str(config.malformed), Encoder.simple_string_encoder())
        .with_rolling_policy(
            RollingPolicy.default_rolling_policy(rollover_interval=60_000, inactivity_interval=10_000)
        )
        .build()
    ).name("refused events' files").uid("refused_files")


def _lines(environment: StreamExecutionEnvironment, stream: MNRStreamConfig) -> DataStream:
    if stream.kafka is None:
        source = (
            FileSource.for_record_stream_format(StreamFormat.text_line_format(), str(stream.lines))
            .monitor_continuously(Duration.of_millis(max(1, round(stream.discovery_seconds * 1000))))
            .build()
        )
    else:
        from nearline.mnr_kafka import kafka_source

        source = kafka_source(stream.kafka, SimpleStringSchema())
    return environment.from_source(source, WatermarkStrategy.no_watermarks(), "ranking events").uid("source")


def _by_key(events: DataStream, keyed_value, value, lateness_seconds: float) -> KeyedStream:
    """Assign timestamps and keys that are there already: what PyFlink's own methods do after Python's part."""
    java = get_gateway().jvm.org.apache.flink.streaming.api.functions.python
    strategy = (
        WatermarkStrategy.for_bounded_out_of_orderness(Duration.of_millis(round(lateness_seconds * 1000)))
        .with_idleness(Duration.of_seconds(IDLE_SOURCE_SECONDS))
        ._j_watermark_strategy.withTimestampAssigner(java.eventtime.CustomTimestampAssigner())
    )
    stamped = (
        events._j_data_stream.assignTimestampsAndWatermarks(strategy)
        .uid("watermarks")
        .map(java.eventtime.RemoveTimestampMapFunction(), keyed_value.get_java_type_info())
        .uid("stamped")
    )
    key = Types.ROW([Types.STRING()]).get_java_type_info()
    return KeyedStream(stamped.keyBy(java.KeyByKeySelector(), key), value, events)


def _nothing():
    from pyflink.datastream.connectors import Sink

    return Sink(get_gateway().jvm.org.apache.flink.streaming.api.functions.sink.v2.DiscardingSink())


def main(arguments: list[str]) -> None:
    """Submit the job that a file describes."""
    config = JobConfig.model_validate_json(Path(arguments[0]).read_text())
    environment = StreamExecutionEnvironment.get_execution_environment(Configuration())
    build(environment, config)
    environment.execute_async(JOB_NAME) if "--detached" in arguments else environment.execute(JOB_NAME)


if __name__ == "__main__":
    main(sys.argv[1:])
