"""Where does Spark run, and with what?"""

from pydantic import BaseModel, ConfigDict, Field

GIB = 2**30


class SparkConfig(BaseModel):
    """The Spark session of ``engine = "spark"``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    master: str = Field(
        "local[2]",
        pattern=r"^(local(\[(\*|[1-9]\d*)(, *[1-9]\d*)?\])?|yarn|(spark|k8s)://.+)$",
        description="local[n] for n threads of this machine, or a cluster: spark://, k8s:// or yarn.",
    )
    properties: dict[str, str] = Field(
        default_factory=dict,
        description="Spark's own properties by name, e.g. spark.executor.memory; they win over ours.",
    )
    broadcast_bytes: int = Field(
        2 * GIB,
        ge=0,
        description="Swing: an index of the clicks up to this size goes whole to every worker process; of a"
        " larger one a worker gets what its triggers need.",
    )
