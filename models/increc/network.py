"""
What is IncRec's network? One shared item tower and up to three user towers (Eq. 1, 3, 5).

Shapes: n items or users, m interests (1 for a single-interest backbone), d dim. Representations are
L2-normalised, which is ours: a score is bounded by 1 / temperature. One shorter than ``SHORTEST`` is divided
by that instead: an item of which nothing is known scores 0, and its gradient stays of the others' size. They
are float32 whatever the towers compute in.
"""

from torch import Tensor, nn
from torch.nn import functional

from models.increc import backbones
from models.increc.config import IncRecConfig
from models.increc.item_tower import INITIAL_STD, History, ItemEmbedding
from models.increc.segments import sum_rows
from models.increc.sequence import SequenceEmbedding
from models.increc.tables import distinct_rows

SHORTEST = 0.1


class IncRec(nn.Module):
    """
    Item tower ``v_i`` and user towers ``u_basic``, ``u_incremental``, ``u_alignment`` of one backbone.

    The input embeddings of items, of what a history's items carry and of profile features are shared by all
    towers; everything behind them is each tower's own.
    """

    def __init__(self, config: IncRecConfig, n_rows: int) -> None:
        """Build the towers of ``config.variant`` over ``n_rows`` rows of item ids."""
        super().__init__()
        backbone = backbones.load(config.backbone)
        self.item_embedding = ItemEmbedding(config, n_rows)
        self.profile_embedding = nn.Embedding(config.n_profile_buckets + 1, config.dim)
        nn.init.normal_(self.profile_embedding.weight, std=INITIAL_STD)
        self.sequence_embedding = SequenceEmbedding(config) if backbone.READS_SEQUENCE else None
        self.item_tower = backbone.ItemTower(config)
        self.user_towers = nn.ModuleDict({tower: backbone.UserTower(config) for tower in config.towers})

    def represent_items(self, embedded: Tensor) -> Tensor:
        """Item tower, Eq. 1: input embeddings [n, d] -> unit vectors v [n, d]."""
        return functional.normalize(self.item_tower(embedded).float(), dim=-1, eps=SHORTEST)

    def history(self, embedded: Tensor, index: Tensor, offsets: Tensor, context: Tensor) -> History:
        """
        Put the histories of n users together for all towers: arguments as of ``History``.

        ``context`` int64 [v, 2], the time gap's and the scenario's bucket of each item; [0, 2] where the
        backbone reads none.
        """
        if self.sequence_embedding is None:
            return History(embedded, index, offsets)
        return History(embedded, index, offsets, *self.sequence_embedding(context, offsets))

    def represent_users(self, tower: str, history: History, profile: Tensor) -> Tensor:
        """User tower, Eq. 1, 3 or 5: histories and profiles [n, d] -> unit vectors u [n, m, d]."""
        return functional.normalize(self.user_towers[tower](history, profile).float(), dim=-1, eps=SHORTEST)

    def embed_profiles(self, buckets: Tensor, offsets: Tensor) -> Tensor:
        """Average each user's profile features: int64 [v] cut at int64 [n + 1] -> [n, d]."""
        return functional.embedding_bag(buckets, self.profile_embedding.weight, offsets[:-1], mode="mean")

    def embed_batch_profiles(self, rows: Tensor, index: Tensor, offsets: Tensor) -> Tensor:
        """Do the same for a training step, whose distinct rows int64 [q] ``index`` points into."""
        distinct = distinct_rows(self.profile_embedding.weight, rows)
        return sum_rows(distinct, index, offsets) / offsets.diff().unsqueeze(1)
