"""
What does a registered release answer? The model file of MLflow: histories in, top-K items out.

    model = mlflow.pyfunc.load_model("models:/retrieval@champion")
    model.predict(pd.DataFrame({"item_ids": [[3, 7], []]}), params={"k": 50, "channel": "merged"})

``item_ids`` is a history, oldest first; ids that the release does not know are ignored. With the optional
``user_id``, an empty history is replaced by the user's history as of the end of the release's day. A user
without any known history gets the most popular items. Items of the history are never returned.

Towers that read a history as a sequence also use, where they are given, the optional columns ``event_times``
and ``scenarios``, a list each with one value for each of ``item_ids`` (times in UTC where they have no zone),
and ``now``, the time to count gaps to; without it that is the start of the day after the release's.

``channel`` is ``merged`` (all channels by the release's quotas), ``swing``, ``popularity``, ``pi2i`` or a
tower. The score of the item at place r, from 0 on, is 1 / (r + 1): scores of different channels cannot be
compared. Unlike the published candidates, users come without profile features, and a channel with
``filter_retrieved`` does not leave out what the existing channels return: the model does not know it.

MLflow runs this file from the version's own copy of the packages ``lakehouse`` and ``models``.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import mlflow
import numpy as np
import pandas as pd
import pyarrow as pa
from mlflow.pyfunc import PythonModel, PythonModelContext

from lakehouse.releases import Release, open_release
from models.channels import merge_channels
from models.increc.model import TrainedModel
from models.increc.ragged import Ragged
from models.item_to_item import retrieve_by_items
from models.pi2i.model import TrainedScorer
from models.pi2i.prices import log_prices
from models.pi2i.trigger_index import TriggerIndex, trigger_index
from models.popularity import retrieve_popular
from models.search import exact_top_k

MERGED, SWING, POPULARITY, PI2I = "merged", "swing", "popularity", "pi2i"
DEFAULT_K = 100


class UnknownChannel(ValueError):
    """The release has no such channel."""


@dataclass(frozen=True)
class Histories:
    """The known items of each row's history, when and where each was used, and the time to count gaps to."""

    item_ids: pa.ListArray
    event_times: pa.ListArray
    scenarios: pa.ListArray
    now: np.ndarray


class Retrieval(PythonModel):
    """The retrieval stage of one release."""

    def load_context(self, context: PythonModelContext) -> None:
        """Open the release and load its towers, and PI2I's scorer where it has one."""
        self.release: Release = open_release(context.artifacts["release"])
        towers = {name: self.release.channel(name) for name in self.release.towers}
        self.models = {
            name: TrainedModel.from_files({"model.safetensors": tower.weights, "config.json": tower.config})
            for name, tower in towers.items()
        }
        self.scorer = TrainedScorer.from_bytes(self.release.scorer) if self.release.has_scorer else None
        stored = self.release.user_history
        self.users = pd.Index(stored["user_id"].to_numpy())
        self.stored = [stored[name].combine_chunks() for name in ("item_ids", "event_times", "scenarios")]
        self.known_ids = np.sort(self.release.item_index["item_id"].to_numpy())

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict | None = None
    ) -> pd.DataFrame:
        """
        Give the columns ``item_ids``, best first, and ``scores`` for each row.

        Raises:
            UnknownChannel: ``params["channel"]`` is none of the release's.
            ValueError: ``params["k"]`` is below 1, or times or scenarios are not one for each item.
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
        has_history = np.diff(histories.item_ids.offsets.to_numpy()) > 0
        popular = retrieve_popular(self.release.popular_item_ids, histories.item_ids, k)
        retrieved = np.where(has_history[:, None], retrieved, popular)
        rows = [row[row >= 0] for row in retrieved]
        scores = [1 / (np.arange(len(row)) + 1) for row in rows]
        return pd.DataFrame(
            {"item_ids": [row.tolist() for row in rows], "scores": [row.tolist() for row in scores]},
            index=model_input.index,
        )

    def _known_histories(self, model_input: pd.DataFrame) -> Histories:
        nothing = pd.Series(None, model_input.index, dtype=object)
        names = ("item_ids", "event_times", "scenarios")
        given = zip(*(model_input.get(name, nothing) for name in names), strict=True)
        places = self.users.get_indexer(model_input.get("user_id", nothing))
        rows = []
        for number, (row, place) in enumerate(zip(given, places, strict=True)):
            item_ids, event_times, scenarios = ([] if _is_absent(part) else list(part) for part in row)
            if not item_ids and place >= 0:
                item_ids, event_times, scenarios = (part[place].as_py() for part in self.stored)
            rows.append(list(_aligned(number, item_ids, event_times, scenarios)))
        flat = [item for row in rows for item in row]
        item_ids, event_times, scenarios = zip(*flat, strict=True) if flat else ((), (), ())
        ids = np.asarray(item_ids, np.int64)
        is_known = np.isin(ids, self.known_ids)
        kept = Ragged.from_lengths(ids, np.array([len(row) for row in rows], np.int64)).where(is_known)
        values = kept.values, _utc(event_times)[is_known], np.asarray(scenarios, object)[is_known]
        types = pa.int64(), pa.timestamp("us"), pa.string()
        offsets = pa.array(kept.offsets, pa.int32())
        lists = (
            pa.ListArray.from_arrays(offsets, pa.array(each, type_))
            for each, type_ in zip(values, types, strict=True)
        )
        return Histories(*lists, now=self._now(model_input))

    def _now(self, model_input: pd.DataFrame) -> np.ndarray:
        """Give each row's time to count gaps to: its own, else the time that the release is served from."""
        served_from = np.datetime64(self.release.manifest.served_from or "NaT", "us")
        if "now" not in model_input:
            return np.full(len(model_input), served_from)
        now = _utc(model_input["now"])
        return np.where(np.isnat(now), served_from, now)

    def _retrieve_merged(self, histories: Histories, k: int) -> np.ndarray:
        """Merge by the release's quotas, enlarged in proportion where they add up to less than k."""
        quotas = self.release.manifest.quotas
        size = max(k, sum(quotas.values()))
        enlarged = {name: -(-quota * size // sum(quotas.values())) for name, quota in quotas.items()}
        lists = {name: self._retrieve(name, histories, size) for name in quotas}
        return merge_channels(lists, enlarged)[:, :k]

    def _retrieve(self, channel: str, histories: Histories, k: int) -> np.ndarray:
        if channel == POPULARITY:
            return retrieve_popular(self.release.popular_item_ids, histories.item_ids, k)
        if channel == SWING:
            return retrieve_by_items(
                self.release.i2i_table,
                histories.item_ids,
                k,
                n_triggers=self.release.manifest.n_triggers,
                allowed_item_ids=self.release.items["item_id"].to_numpy(),
            )
        if channel == PI2I and self.scorer:
            return self._score_candidates(self.scorer, histories, k)
        if channel not in self.models:
            known = dict.fromkeys((MERGED, SWING, POPULARITY, *self.models, *([PI2I] if self.scorer else [])))
            raise UnknownChannel(f"params channel is {channel!r}; this release has {', '.join(known)}")
        tower = self.release.channel(channel)
        users = self.models[channel].embed_users(
            histories.item_ids,
            items=self.release.items,
            event_times=histories.event_times,
            scenarios=histories.scenarios,
            now=histories.now,
        )
        return exact_top_k(users, tower.item_embeddings, tower.item_ids, k, exclude=histories.item_ids)

    def _score_candidates(self, scorer: TrainedScorer, histories: Histories, k: int) -> np.ndarray:
        return scorer.retrieve(
            self.trigger_index,
            self.release.items,
            histories.item_ids,
            None,
            k,
            log_prices=log_prices(self.release.items),
        )

    @cached_property
    def trigger_index(self) -> TriggerIndex:
        """The release's i2i table as PI2I reads it, its targets restricted to what may be recommended."""
        available = self.release.items["item_id"].to_numpy()
        return trigger_index(
            self.release.i2i_table,
            allowed_item_ids=available,
            item_statistics=self.release.item_statistics,
        )


def _is_absent(value: object) -> bool:
    return value is None or (np.ndim(value) == 0 and pd.isna(value))


def _aligned(number: int, item_ids: list, event_times: list, scenarios: list) -> Iterator[tuple]:
    """Give each item of one row with its time and scenario, unknown ones where none are given."""
    for name, given in (("event_times", event_times), ("scenarios", scenarios)):
        if given and len(given) != len(item_ids):
            raise ValueError(
                f"row {number} has {len(item_ids)} item_ids but {len(given)} {name}: "
                "give one for each item, or none"
            )
    nothing = [None] * len(item_ids)
    return zip(item_ids, event_times or nothing, scenarios or nothing, strict=True)


def _utc(times: object) -> np.ndarray:
    """Give times as datetime64 in UTC; those without a zone are in UTC."""
    parsed = pd.to_datetime(pd.Series(times, dtype=object), utc=True)
    return parsed.dt.tz_localize(None).to_numpy("datetime64[us]")


mlflow.models.set_model(Retrieval())
