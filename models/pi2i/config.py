"""
How is PI2I's scorer built and trained? Its hyperparameters. Importing this file loads no torch.

Names as in the paper (3.2, 4.4): samplings and ablations.
"""

from typing import Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Sampling = Literal["default", "hard_only", "hard_dominant", "sparse"]

# Bits of a candidate's trigger mask: one per trigger.
MOST_TRIGGERS = 128


class NegativeCounts(NamedTuple):
    """How many hard and easy negatives a sample has at most."""

    n_hard: int
    n_easy: int


NEGATIVES: dict[str, NegativeCounts] = {
    "default": NegativeCounts(20, 80),
    "hard_only": NegativeCounts(20, 0),
    "hard_dominant": NegativeCounts(20, 10),
    "sparse": NegativeCounts(10, 40),
}


class PI2IConfig(BaseModel):
    """Hyperparameters of PI2I's samples and scorer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_triggers: int = Field(
        100, ge=1, le=MOST_TRIGGERS, description="Last distinct history items that reach for candidates."
    )
    sampling: Sampling = Field(
        "default",
        description="Negatives of a sample, hard + easy: default 20 + 80, hard_only 20 + 0, hard_dominant "
        "20 + 10, sparse 10 + 40.",
    )
    triggers: Literal["multiple", "single", "none"] = Field(
        "multiple",
        description="E_trigger: of all triggers that reach the target, of one of them at random (ablation "
        "single_trigger), or left out (no_trigger).",
    )
    attention: Literal["target", "self"] = Field(
        "target", description="What attends to the triggers: Q of Eq. 8, or the triggers (self_attention)."
    )
    logq: bool = Field(
        True,
        description="Subtract log q of the sampling from the training logits; False is the paper's text.",
    )
    dim: int = Field(32, ge=2, le=1024, description="Width d of embeddings and attention.")
    hidden_dim: int = Field(64, ge=2, le=4096, description="Width of the hidden layer of either MLP.")
    n_heads: int = Field(2, ge=1, le=64, description="Heads of the target attention; divides dim.")
    dropout: float = Field(
        0.2,
        ge=0,
        lt=1,
        description="Share of the inputs and hidden units that a training step drops for a candidate.",
    )
    learning_rate: float = Field(0.003, gt=0, le=10, description="Learning rate of Adam.")
    epochs: int = Field(3, ge=1, le=1000, description="Passes over the samples.")
    batch_size: int = Field(512, ge=1, le=1_000_000, description="Samples (clicks) per step.")
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
    seed: int = Field(0, ge=0, lt=2**32, description="Seed of samples, initial weights and their order.")
    n_threads: int = Field(
        2, ge=1, le=256, description="CPU threads of training; does not change what is learned."
    )

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.dim % self.n_heads:
            raise ValueError(f"dim {self.dim} must be a multiple of n_heads {self.n_heads}")
        return self

    @property
    def negatives(self) -> NegativeCounts:
        """How many hard and easy negatives a sample has at most."""
        return NEGATIVES[self.sampling]
