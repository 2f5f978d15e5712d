"""
What does a registered release answer? The model file of MLflow: histories in, top-K items out.

    model = mlflow.pyfunc.load_model("models:/retrieval@champion")
    model.predict(pd.DataFrame({"item_ids": [[3, 7], []]}), params={"k": 50, "channel": "merged"})

``item_ids`` is a history, oldest first; ids that the release does not know are ignored. With the optional
``user_id``, an empty history is replaced by the user's history as of the end of the release's day. A user
without any known history gets the most popular items. Items of the history are never returned.

``channel`` is ``merged`` (all channels by the release's quotas), ``swing``, ``popularity`` or a tower. The
score of the item at place r, from 0 on, is 1 / (r + 1): scores of different channels cannot be compared.
Unlike the published candidates, users come without profile features.

MLflow runs this file from the version's own copy of the packages ``lakehouse`` and ``models``.
"""

import mlflow
import numpy as np
import pandas as pd
import pyarrow as pa
from mlflow.pyfunc import PythonModel, PythonModelContext

from lakehouse.releases import Release, open_release
from models.channels import merge_channels
from models.increc.model import TrainedModel
from models.item_to_item import retrieve_by_items
from models.popularity import retrieve_popular
from models.search import exact_top_k

MERGED, SWING, POPULARITY = "merged", "swing", "popularity"
DEFAULT_K = 100


class UnknownChannel(ValueError):
    """The release has no such channel."""


class Retrieval(PythonModel):
    """The retrieval stage of one release."""

    def load_context(self, context: PythonModelContext) -> None:
        """Open the release and load its towers."""
        self.release: Release = open_release(context.artifacts["release"])
        towers = {name: self.release.channel(name) for name in self.release.towers}
        self.models = {
            name: TrainedModel.from_files({"model.safetensors": tower.weights, "config.json": tower.config})
            for name, tower in towers.items()
        }
        stored = self.release.user_history
        self.users = pd.Index(stored["user_id"].to_numpy())
        self.histories = stored["item_ids"].combine_chunks()
        self.known_ids = np.sort(self.release.item_index["item_id"].to_numpy())

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict | None = None
    ) -> pd.DataFrame:
        """
        Give the columns ``item_ids``, best first, and ``scores`` for each row.

        Raises:
            UnknownChannel: ``params["channel"]`` is none of the release's.
            ValueError: ``params["k"]`` is below 1.
        """
        params = params or {}
        k, channel = int(params.get("k", DEFAULT_K)), params.get("channel", MERGED)
        if k < 1:
            raise ValueError(f"params k is {k}; ask for at least 1 item")
        histories = self._known_histories(model_input)
        retrieved = (
            self._retrieve_merged(histories, k)
            if channel == MERGED
            else self._retrieve(channel, histories, k)
        )
        has_history = np.diff(histories.offsets.to_numpy()) > 0
        popular = retrieve_popular(self.release.popular_item_ids, histories, k)
        retrieved = np.where(has_history[:, None], retrieved, popular)
        rows = [row[row >= 0] for row in retrieved]
        scores = [1 / (np.arange(len(row)) + 1) for row in rows]
        return pd.DataFrame(
            {"item_ids": [row.tolist() for row in rows], "scores": [row.tolist() for row in scores]},
            index=model_input.index,
        )

    def _known_histories(self, model_input: pd.DataFrame) -> pa.ListArray:
        users = model_input.get("user_id", pd.Series(pd.NA, model_input.index))
        places = self.users.get_indexer(users)
        rows = []
        for item_ids, place in zip(model_input["item_ids"], places, strict=True):
            row = np.asarray([] if item_ids is None else item_ids, np.int64)
            if not len(row) and place >= 0:
                row = self.histories[place].values.to_numpy()
            rows.append(row[np.isin(row, self.known_ids)])
        return pa.array(rows, pa.list_(pa.int64()))

    def _retrieve_merged(self, histories: pa.ListArray, k: int) -> np.ndarray:
        """Merge by the release's quotas, enlarged in proportion where they add up to less than k."""
        quotas = self.release.manifest.quotas
        size = max(k, sum(quotas.values()))
        enlarged = {name: -(-quota * size // sum(quotas.values())) for name, quota in quotas.items()}
        lists = {name: self._retrieve(name, histories, size) for name in quotas}
        return merge_channels(lists, enlarged)[:, :k]

    def _retrieve(self, channel: str, histories: pa.ListArray, k: int) -> np.ndarray:
        if channel == POPULARITY:
            return retrieve_popular(self.release.popular_item_ids, histories, k)
        if channel == SWING:
            return retrieve_by_items(
                self.release.i2i_table,
                histories,
                k,
                n_triggers=self.release.manifest.n_triggers,
                allowed_item_ids=self.release.items["item_id"].to_numpy(),
            )
        if channel not in self.models:
            known = dict.fromkeys((MERGED, SWING, POPULARITY, *self.models))
            raise UnknownChannel(f"params channel is {channel!r}; this release has {', '.join(known)}")
        tower = self.release.channel(channel)
        users = self.models[channel].embed_users(histories, items=self.release.items)
        return exact_top_k(users, tower.item_embeddings, tower.item_ids, k, exclude=histories)


mlflow.models.set_model(Retrieval())
