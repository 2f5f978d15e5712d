"""How are ranking events read from Kafka? In Flink's environment, with a connector of the deployment's."""

from pyflink.common.serialization import DeserializationSchema
from pyflink.datastream.connectors.kafka import KafkaOffsetResetStrategy, KafkaOffsetsInitializer, KafkaSource

from nearline.mnr_config import KafkaConfig


class ConnectorMissing(RuntimeError):
    """Flink has no Kafka connector; the message says how to give it one."""


def kafka_source(config: KafkaConfig, schema: DeserializationSchema) -> KafkaSource:
    """
    Build the source: from the group's offsets, at first from the earliest.

    Raises:
        ConnectorMissing: no jar of the connector is among ``mnr_stream.jars``.
    """
    try:
        start = KafkaOffsetsInitializer.committed_offsets(KafkaOffsetResetStrategy.EARLIEST)
        builder = KafkaSource.builder()
    except TypeError as error:  # py4j: a class that is not there is a package, which cannot be called
        raise ConnectorMissing(
            "Flink has no Kafka connector: name the jar of flink-sql-connector-kafka in mnr_stream.jars"
        ) from error
    builder = (
        builder.set_bootstrap_servers(config.servers)
        .set_topics(config.topic)
        .set_group_id(config.group)
        .set_starting_offsets(start)
        .set_value_only_deserializer(schema)
    )
    for name, value in config.properties.items():
        builder = builder.set_property(name, value)
    return builder.build()
