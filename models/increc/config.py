"""
How is an IncRec model trained? Its hyperparameters, and what each named variant switches on.

RTG / ITG / ETG = retrieved / incremental / exposed target group. Importing this file loads no torch.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from models.increc import backbones

Variant = Literal["TB-Online", "TB-ITG", "TB-boost", "IncRec-NA", "IncRec-ori", "IncRec"]
AlphaMode = Literal["none", "direct", "implicit"]
Tower = Literal["basic", "incremental", "alignment"]

ALPHA_MODE: dict[str, AlphaMode] = {"IncRec-NA": "none", "IncRec-ori": "direct", "IncRec": "implicit"}
TOWERS: dict[str, tuple[Tower, ...]] = {
    "TB-Online": ("basic",),
    "TB-ITG": ("basic",),
    "TB-boost": ("basic",),
    "IncRec-NA": ("basic", "incremental"),
    "IncRec-ori": ("basic", "incremental", "alignment"),
    "IncRec": ("basic", "incremental", "alignment"),
}
STRUCTURE = (
    "variant",
    "backbone",
    "dim",
    "hidden_dim",
    "n_category_buckets",
    "n_author_buckets",
    "n_brand_buckets",
    "n_price_buckets",
    "n_profile_buckets",
    "optimizer_state",
)


class IncRecConfig(BaseModel):
    """Hyperparameters of one method: a variant of IncRec over one backbone."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    variant: Variant = Field(
        "IncRec",
        description="TB-Online: basic tower by itself; TB-ITG: the same on ITG positives only; TB-boost: ITG "
        "positives up-weighted; IncRec-NA: with the incremental tower, alpha = 1; IncRec-ori: alpha from the "
        "incremental item itself; IncRec: alpha from the most similar exposed item (Eq. 7).",
    )
    backbone: str = Field(
        "youtubednn", description="Structure of the user and item towers: a file of models/increc/backbones."
    )
    dim: int = Field(64, ge=2, le=1024, description="Width d of embeddings and representations.")
    hidden_dim: int = Field(128, ge=2, le=4096, description="Width of the hidden layer of the towers' MLPs.")
    temperature: float = Field(
        0.2, ge=0.01, le=10, description="Inner products of unit vectors are divided by it before exp."
    )
    n_negatives: int = Field(
        500, ge=1, le=100_000, description="Negatives N, drawn once per batch and shared by its samples."
    )
    negatives: Literal["uniform", "in_batch", "mixed"] = Field(
        "in_batch",
        description="uniform: from the catalogue, as in the paper; in_batch: from the batch's positives, "
        "log-Q corrected (on thin logs uniform ones leave users with little but the most popular items); "
        "mixed: half of each, corrected for the mixture.",
    )
    learning_rate: float = Field(0.05, gt=0, le=10, description="Learning rate of AdaGrad.")
    optimizer_state: Literal["element_wise", "row_wise"] = Field(
        "element_wise",
        description="AdaGrad's sums for embedding tables: one per number, or one per row, which halves a "
        "large catalogue's memory and checkpoint.",
    )
    precision: Literal["float32", "bfloat16"] = Field(
        "float32",
        description="bfloat16: matrix products in it (autocast); weights, sums and losses stay float32.",
    )
    epochs: int = Field(5, ge=1, le=1000, description="Passes over the samples, at most.")
    validation_share: float = Field(
        0.0,
        ge=0,
        le=0.5,
        description="Share of users, drawn by the seed, whose samples are held out: the epoch with the "
        "serving tower's lowest loss on them is kept. 0 learns from all and keeps the last epoch.",
    )
    patience: int = Field(
        1, ge=1, le=1000, description="Training stops after this many epochs without a lower held-out loss."
    )
    batch_size: int = Field(512, ge=1, le=1_000_000, description="Samples (requests) per step.")
    history_length: int = Field(50, ge=1, le=10_000, description="Newest history items that a tower sees.")
    n_category_buckets: int = Field(
        1024, ge=0, le=10_000_000, description="Hash buckets of category_id; 0 leaves the feature out."
    )
    n_author_buckets: int = Field(
        16_384, ge=0, le=10_000_000, description="Hash buckets of author_id; 0 leaves the feature out."
    )
    n_brand_buckets: int = Field(
        4096, ge=0, le=10_000_000, description="Hash buckets of brand_id; 0 leaves the feature out."
    )
    n_price_buckets: int = Field(
        0, ge=0, le=64, description="Buckets of log2(1 + price), the last open; 0 leaves the feature out."
    )
    n_profile_buckets: int = Field(
        4096, ge=0, le=10_000_000, description="Hash buckets of profile tokens name=value; 0 leaves them out."
    )
    boost: float = Field(
        3.0, gt=0, le=1000, description="Weight of an ITG positive in TB-boost; an RTG positive has 1."
    )
    etg_pool: Literal["batch", "day"] = Field(
        "batch",
        description="Exposed items among which Eq. 7 picks j: those of the batch, or of the sample's day "
        "(compared by the item representations at the start of the epoch).",
    )
    start: Literal["scratch", "carry_on"] = Field(
        "scratch", description="Where weights come from: the seed, or the model of the day before."
    )
    seed: int = Field(0, ge=0, lt=2**32, description="Seed of initial weights, order of samples, negatives.")
    n_threads: int = Field(
        1,
        ge=1,
        le=256,
        description="CPU threads, part of what makes a run repeatable. Steps are small: a second thread "
        "gains little, and loses much where other work shares the cores.",
    )

    @field_validator("backbone")
    @classmethod
    def _is_known(cls, name: str) -> str:
        if name not in backbones.names():
            raise ValueError(f"unknown backbone {name!r}; known: {', '.join(backbones.names())}")
        return name

    @property
    def alpha_mode(self) -> AlphaMode:
        """Where the consistency weight alpha of Eq. 4 comes from; "none" gives every ITG item 1."""
        return ALPHA_MODE.get(self.variant, "none")

    @property
    def towers(self) -> tuple[Tower, ...]:
        """The user towers that the variant trains."""
        return TOWERS[self.variant]

    @property
    def serving_tower(self) -> Tower:
        """The user tower that retrieves: the incremental one wherever it is trained."""
        return "incremental" if "incremental" in self.towers else "basic"

    @property
    def needs_itg(self) -> bool:
        """Whether the serving tower learns from ITG positives alone."""
        return self.variant == "TB-ITG" or "incremental" in self.towers
