"""
How does a click become fresh candidates? Take, note, score, write, finish.

Events are taken in bounded batches, and a user's clicks in one batch are answered together, so that a backlog
costs less a click, not more. A user's clicks are finished only once the list is in the store: whatever dies
in between, they come again, and noting them again changes nothing. Any number of workers share a stream
without locks, because the store gives each state of a user's clicks a revision and keeps the list of the
newest one.
"""

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from threading import Event
from typing import TypeVar

import numpy as np

from nearline.candidates import StoreUnavailable
from nearline.click_config import NearlineConfig
from nearline.click_metrics import ClickMetrics
from nearline.click_source import ClickSource
from nearline.clicks import Click, Delivery, MalformedClick, read_click
from nearline.served_scorer import ServedScorer
from nearline.store import OnlineStore

LIST_NAME = "pi2i"
TAKE_SECONDS = 0.5
FIRST_RETRY_SECONDS, LONGEST_RETRY_SECONDS = 0.1, 5.0

T = TypeVar("T")

log = logging.getLogger(__name__)


class GaveUp(ConnectionError):
    """Store or stream did not answer for too long; no click is lost."""


class ClickWorker:
    """Answers clicks until it is told to stop."""

    def __init__(
        self,
        source: ClickSource,
        store: OnlineStore,
        scorers: ServedScorer,
        config: NearlineConfig,
        metrics: ClickMetrics,
    ) -> None:
        """Take what it works with; all of it stays the caller's to close."""
        self._source, self._store, self._scorers = source, store, scorers
        self._config, self._metrics = config, metrics
        self._stop = Event()
        self._taken: list[Delivery] = []

    def stop(self) -> None:
        """Let `run` end after the user at work."""
        self._stop.set()

    def run(self) -> None:
        """
        Answer clicks as they come.

        Raises:
            GaveUp: store or stream did not answer for ``patience_seconds``.
        """
        while not self._stop.is_set():
            self._scorers.current()
            self._taken = self._insist(lambda: self._source.take(self._config.batch_size, TAKE_SECONDS))
            try:
                self._answer_all(self._taken)
            except GaveUp:
                # Not the clicks' fault: an outage must not use up what they may be taken.
                with suppress(StoreUnavailable):
                    self._source.give_back(self._taken)
                raise
            self._taken = []
            self._tell()
        self._metrics.write("stopped")

    def _answer_all(self, deliveries: list[Delivery]) -> None:
        """Answer a batch, user by user, until told to stop."""
        for user_id, taken in self._by_user(deliveries).items():
            if self._stop.is_set():
                break
            self._answer(user_id, taken)
            self._tell()

    def _by_user(self, deliveries: list[Delivery]) -> dict[int, list[tuple[Delivery, Click]]]:
        """Read the clicks, a user's together; what is none or was taken too often is put aside."""
        taken: dict[int, list[tuple[Delivery, Click]]] = {}
        for delivery in deliveries:
            try:
                if delivery.n_deliveries > self._config.max_deliveries:
                    raise MalformedClick(f"not finished in {delivery.n_deliveries - 1} deliveries")
                latest = 1e6 * (time.time() + self._config.most_ahead_seconds)
                click = read_click(delivery.fields, latest=latest)
            except MalformedClick as error:
                self._put_aside(delivery, str(error))
                continue
            taken.setdefault(click.user_id, []).append((delivery, click))
        return taken

    def _put_aside(self, delivery: Delivery, reason: str) -> None:
        self._insist(lambda: self._source.put_aside(delivery, reason))
        self._metrics.count("put_aside")
        log.warning("event %s is put aside: %s", delivery.event_id, reason)

    def _answer(self, user_id: int, taken: list[tuple[Delivery, Click]]) -> None:
        """Write the user's list and finish the clicks; what fails with these clicks alone comes again."""
        deliveries, clicks = zip(*taken, strict=True)
        try:
            self._write_list(user_id, clicks)
        except GaveUp:
            raise
        except Exception:
            self._metrics.count("failed")
            ids = ", ".join(delivery.event_id for delivery in deliveries)
            log.exception("the clicks %s of user %d cannot be answered; they are taken again", ids, user_id)
            return
        self._insist(lambda: self._source.finish(deliveries))
        now = time.time()
        for delivery in deliveries:
            self._metrics.took(now - delivery.arrived_at)

    def _write_list(self, user_id: int, clicks: tuple[Click, ...]) -> None:
        config, count = self._config, self._metrics.count
        scorer = self._scorers.current()
        pairs = [(click.item_id, click.event_time) for click in clicks]
        clicked = self._insist(
            lambda: self._store.note_clicks(
                user_id, pairs, keep=config.n_clicked, keep_seconds=config.clicked_days * 86_400
            )
        )
        answer = scorer.answer(user_id, clicked, config.k)
        n_written = self._insist(
            lambda: self._store.write_many(
                LIST_NAME,
                np.array([user_id]),
                answer.item_ids[None],
                answer.scores[None],
                release=scorer.digest,
                event_times=clicked.event_times[-1:].astype("datetime64[us]"),
                revisions=clicked.revision,
            )
        )
        count("clicks", len(clicks))
        count("repeated", len(clicks) - clicked.n_changed)
        if not scorer.knows_user(user_id):
            count("unknown_users", len(clicks))
        known = scorer.knows_items(np.array([click.item_id for click in clicks]))
        count("unknown_items", len(clicks) - int(known.sum()))
        count("lists" if n_written else "outdated")
        count("fallbacks", int(bool(n_written) and answer.is_fallback))

    def _insist(self, act: Callable[[], T]) -> T:
        """Do it; where store or stream does not answer, again and again, ever slower, until patience ends."""
        wait, give_up_at = FIRST_RETRY_SECONDS, time.monotonic() + self._config.patience_seconds
        longest = min(LONGEST_RETRY_SECONDS, self._config.claim_after_seconds / 4)
        while True:
            try:
                return act()
            except StoreUnavailable as error:
                self._metrics.count("retries")
                if self._stop.is_set() or time.monotonic() + wait > give_up_at:
                    raise GaveUp(f"{error}; clicks wait where they are, none is lost") from error
                log.warning("%s; again in %.1f s", error, wait)
                self._metrics.write("waiting")
                # Other workers would fare no better, and their claims count as deliveries.
                with suppress(StoreUnavailable):
                    self._source.hold(self._taken)
                self._stop.wait(wait)
                wait = min(2 * wait, longest)

    def _tell(self) -> None:
        """Write the metrics, once a second."""
        if not self._metrics.is_due:
            return
        scorer = self._scorers.scorer
        self._metrics.release, self._metrics.day = scorer.digest, self._scorers.day.isoformat()
        self._metrics.backlog = self._insist(self._source.backlog)
        self._metrics.write()
