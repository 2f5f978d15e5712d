"""
What does Flink run? Lines -> visits -> one queue per (user, scenario) -> lists in the online store.

    source -> read events -> watermarks -> by (user, scenario) -> queue and score -> online store
                    refused events -> files, with the reason

Runs in Flink's own environment: ``python -m nearline.mnr_job job.json``. A list is written some milliseconds
after its event, together with others, by a timer of its key. Timers are part of a checkpoint, so what a
killed process had gathered is made again; the store lets no older list win.

In thread mode a thread runs one Python operator at most: a second one would have a Python thread state of
its own, and compiled code would wait for the first one's for ever. So reading an event gives its key and
timestamp as well, and Java classes of PyFlink do the rest; the refused, whose stream begins with a Python
operator, have a thread of their own.
"""

import sys
from pathlib import Path

from pyflink.common import Configuration, Duration, Types, WatermarkStrategy
from pyflink.common.serialization import Encoder, SimpleStringSchema
from pyflink.common.typeinfo import TypeInformation
from pyflink.datastream import OutputTag, StreamExecutionEnvironment
from pyflink.datastream.connectors import Sink
from pyflink.datastream.connectors.file_system import FileSink, FileSource, RollingPolicy, StreamFormat
from pyflink.datastream.data_stream import DataStream, KeyedStream
from pyflink.java_gateway import get_gateway

from nearline.mnr_config import JobConfig, MNRStreamConfig
from nearline.mnr_operators import QueueAndScore, ReadEvents

JOB_NAME = "mnr"
IDLE_SOURCE_SECONDS = 10
"""A source without events for so long no longer holds the watermark back."""


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


def _by_key(
    events: DataStream, keyed_value: TypeInformation, value: TypeInformation, lateness_seconds: float
) -> KeyedStream:
    """Assign timestamps and keys that are there already: what PyFlink's methods do after Python's part."""
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


def _nothing() -> Sink:
    """Give a sink for a stream that has no elements: Flink runs only what ends in one."""
    return Sink(get_gateway().jvm.org.apache.flink.streaming.api.functions.sink.v2.DiscardingSink())


def main(arguments: list[str]) -> None:
    """Submit the job that a file describes."""
    config = JobConfig.model_validate_json(Path(arguments[0]).read_text())
    environment = StreamExecutionEnvironment.get_execution_environment(Configuration())
    build(environment, config)
    environment.execute(JOB_NAME)


if __name__ == "__main__":
    main(sys.argv[1:])
