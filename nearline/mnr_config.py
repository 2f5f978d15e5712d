"""How does the streaming MNR job run? Its settings; importing this file loads nothing of Flink."""

from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class KafkaConfig(BaseModel):
    """The topic that ranking events come from; one JSON object a message, as a line has it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    servers: str = Field(min_length=1, description="bootstrap.servers: host:port, several by commas.")
    topic: str = Field(min_length=1, description="The topic.")
    group: str = Field("tributary-mnr", min_length=1, description="Consumer group.")
    properties: dict[str, str] = Field(
        default_factory=dict, description="Further properties of the consumer (security.protocol, ...)."
    )


class MNRStreamConfig(BaseModel):
    """The streaming job: where events come from, and how Flink runs it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    lines: Path | None = Field(
        None,
        description="Folder that JSON-lines files are moved into, whole; default <var>/mnr/lines. What is "
        "added to a file after it was seen is not read.",
    )
    kafka: KafkaConfig | None = Field(None, description="Read a Kafka topic instead of the folder.")
    jars: tuple[Path, ...] = Field((), description="Further jars for Flink: Kafka's connector and client.")
    mode: Literal["thread", "process"] = Field(
        "thread",
        description="Python inside Flink's processes (thread), which is faster, or beside them (process).",
    )
    parallelism: int = Field(1, ge=1, le=1024, description="Parallel tasks, and slots of a local cluster.")
    state: Literal["heap", "rocksdb"] = Field(
        "heap", description="Where queues live: rocksdb where they outgrow the task manager's memory."
    )
    checkpoint_seconds: float = Field(5.0, ge=0.1, le=3600, description="Time between checkpoints.")
    lateness_seconds: float = Field(
        60.0,
        ge=0,
        le=86_400,
        description="How far the watermark stays behind the newest event. A later event takes its place in "
        "the queue all the same, and is counted.",
    )
    most_ahead_seconds: float = Field(
        60.0, ge=0, le=86_400, description="An event further in the future than this is refused."
    )
    discovery_seconds: float = Field(
        0.1, ge=0.01, le=3600, description="How often the folder is looked at for new files."
    )
    write_seconds: float = Field(
        0.1, ge=0.01, le=60, description="How long lists are gathered before they are written together."
    )
    rest_port: int = Field(
        8081,
        ge=0,
        le=65535,
        description="Port of Flink's page and REST address; 0 takes a free one, and keeps it.",
    )
    rest_bind_host: str = Field(
        "127.0.0.1", min_length=1, description="Address that it listens on; Flink asks nobody for a password."
    )
    jobmanager_mib: int = Field(1024, ge=768, description="Memory of a local cluster's job manager process.")
    taskmanager_mib: int = Field(2048, ge=1024, description="Memory of its task manager process.")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.lines is not None and self.kafka is not None:
            raise ValueError("mnr_stream has both lines and kafka: choose one source")
        return self


class JobConfig(BaseModel):
    """All that a running job has been told, as its file keeps it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mnr: dict = Field(description="Hyperparameters of MNR.")
    stream: MNRStreamConfig = Field(description="The job's settings.")
    store_url: str = Field(description="The online store.")
    malformed: Path = Field(description="Folder that refused events are written to.")
