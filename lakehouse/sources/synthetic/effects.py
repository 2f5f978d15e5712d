"""
How strong is each planted signal in the rows that the world logs?

Each measurement gives named figures: ``(world, log) -> {figure: value}``. Clicks and rankings are the logged
ones; communities and triggers are told by the latent state. A lift is a ratio against chance.
"""

import numpy as np

from lakehouse.sources.synthetic.behaviour import is_favoured
from lakehouse.sources.synthetic.log import Log, Openings, read_openings, unexposed
from lakehouse.sources.synthetic.oracle import interest_scores, wanted_scores
from lakehouse.sources.synthetic.population import companions, n_users_on
from lakehouse.sources.synthetic.requests import HOME
from lakehouse.sources.synthetic.world import SyntheticWorld

Figures = dict[str, float]


def volume(world: SyntheticWorld, log: Log) -> Figures:
    """Measure sizes, click-through and what is new on the last day."""
    last = world.config.n_days - 1
    day, user, item = log.clicks()
    on_last = day == last
    keys = user * world.items.n + item
    return {
        "exposures a day": len(log.day) / world.config.n_days,
        "click-through": float(log.is_click.mean()),
        "orders per click": float(log.is_order.sum() / log.is_click.sum()),
        "repeated clicks": 1.0 - len(np.unique(keys)) / len(keys),
        "last day's clicks on items new since the first": float(
            (world.items.birth_day[item[on_last]] > 0).mean()
        ),
        "last day's clicks by users new since the first": float(
            (user[on_last] >= world.config.n_users).mean()
        ),
    }


def hit_rates(world: SyntheticWorld, log: Log, k: int = 100) -> Figures:
    """Measure Hit@k on the last day: popularity, co-click (cosine, popularity fill) and the two oracles."""
    last = world.config.n_days - 1
    day, user, item = log.clicks()
    shape = (n_users_on(world.config, last), world.items.n)
    seen, wanted = np.zeros(shape, dtype=np.float32), np.zeros(shape, dtype=bool)
    seen[user[day < last], item[day < last]] = 1.0
    wanted[user[day == last], item[day == last]] = True
    wanted &= seen == 0
    popularity = np.bincount(item[day < last], minlength=shape[1]).astype(np.float32)
    together = seen.T @ seen
    np.fill_diagonal(together, 0.0)
    n_users = seen.sum(axis=0) + 1.0
    co_click = seen @ (together / np.sqrt(np.outer(n_users, n_users))) + 1e-6 * popularity
    blocks = world.blocks(last)
    scores = {
        "popularity": np.broadcast_to(popularity, shape),
        "co-click": co_click,
        "oracle of interests": np.concatenate([interest_scores(world, block, last) for block in blocks]),
        "oracle of wants": np.concatenate([wanted_scores(world, block, last) for block in blocks]),
    }
    return {f"Hit@{k} {name}": _hit_rate(score, seen, wanted, k) for name, score in scores.items()}


def communities(world: SyntheticWorld, log: Log) -> Figures:
    """Measure how much oftener two clicks of one user share a cluster (a community) than those of two."""
    _, user, item = log.clicks()
    cluster, community = world.items.cluster[item], world.items.community[item]
    generator = np.random.default_rng(0)
    first, second = _pairs_within(user, generator)
    mixed = generator.permutation(second)
    inside, inside_mixed = cluster[first] == cluster[second], cluster[first] == cluster[mixed]
    same, same_mixed = community[first] == community[second], community[first] == community[mixed]
    return {
        "lift of sharing a cluster": _ratio(inside, inside_mixed),
        "lift of sharing a community": _ratio(same, same_mixed),
        "lift of sharing a community within one cluster": _ratio(same[inside], same_mixed[inside_mixed]),
    }


def scenarios(world: SyntheticWorld, log: Log) -> Figures:
    """Measure how much oftener two same-user clicks share a community within home than across scenarios."""
    rows = log.is_click
    user, scenario, community = log.user[rows], log.scenario[rows], world.items.community[log.item[rows]]
    day = log.day[rows]
    generator = np.random.default_rng(0)
    first, second = _pairs_within(user, generator)
    apart = day[first] != day[second]
    first, second = first[apart], second[apart]
    same = community[first] == community[second]
    inside = (scenario[first] == HOME) & (scenario[second] == HOME)
    across = (scenario[first] == HOME) != (scenario[second] == HOME)
    return {"sharing a community: inside home / across": float(same[inside].mean() / same[across].mean())}


def leaks(world: SyntheticWorld, log: Log) -> Figures:
    """
    Measure home clicks in communities that the user opened elsewhere on the day before.

    Only communities without an earlier click of the user in home count; chance is the same with the openings
    given to other users.
    """
    day, user, item = log.clicks(scenario=HOME)
    community = world.items.community[item]
    first_click = np.full((log.n_users, world.config.n_communities), np.iinfo(np.int64).max)
    np.minimum.at(first_click, (user, community), day)
    favoured = is_favoured(world.config)
    generator = np.random.default_rng(0)
    came, by_chance, in_favoured, moved, moved_otherwise = [], [], [], [], []
    for number in range(1, world.config.n_days):
        openings = read_openings(world, number - 1)
        who, what = openings.user, world.items.community[openings.trigger]
        elsewhere = openings.scenario != HOME
        who, what = who[elsewhere], what[elsewhere]
        companion, variant = companions(world.config)[what], openings.variant[elsewhere, None]
        followed = np.take_along_axis(companion, variant, axis=1)[:, 0]
        other = np.take_along_axis(companion, 1 - variant, axis=1)[:, 0]
        for users, target, outcome in (
            (who, what, came),
            (generator.permutation(who), what, by_chance),
            (who, followed, moved),
            (who, other, moved_otherwise),
        ):
            first = first_click[users, target]
            outcome.append(first[first >= number] == number)
        is_untouched = first_click[who, what] >= number
        in_favoured.append(favoured[what[is_untouched] // world.config.communities_per_cluster])
    came, in_favoured = np.concatenate(came), np.concatenate(in_favoured)
    return {
        "home clicks on an interest opened elsewhere the day before": float(came.mean()),
        "its lift over other users' openings": _ratio(came, np.concatenate(by_chance)),
        "home clicks on it: favoured / unfavoured clusters": _ratio(came[in_favoured], came[~in_favoured]),
        "home clicks on its companion: the user's / the other one": _ratio(
            np.concatenate(moved), np.concatenate(moved_otherwise)
        ),
    }


def sessions(world: SyntheticWorld, log: Log) -> Figures:
    """Measure home clicks in communities that the user opened elsewhere on the same day."""
    n_communities = world.config.n_communities
    day, user, item = log.clicks(scenario=HOME)
    clicked = np.zeros((world.config.n_days, log.n_users, n_communities), dtype=bool)
    clicked[day, user, world.items.community[item]] = True
    generator = np.random.default_rng(0)
    came, by_chance = [], []
    for number in range(world.config.n_days):
        openings = read_openings(world, number)
        elsewhere = openings.scenario != HOME
        who, what = openings.user[elsewhere], world.items.community[openings.trigger[elsewhere]]
        came.append(clicked[number, who, what])
        by_chance.append(clicked[number, generator.permutation(who), what])
    return {"same day's home clicks: own / others' openings": _ratio(*map(np.concatenate, (came, by_chance)))}


def triggers(world: SyntheticWorld, log: Log) -> Figures:
    """Measure follow-up clicks of active users in a trigger's community by its age, strength and fit."""
    day, user, item = log.clicks()
    community, n_communities = world.items.community[item], world.config.n_communities
    is_active = np.zeros((world.config.n_days, log.n_users), dtype=bool)
    is_active[day, user] = True
    followed = np.zeros((world.config.n_days, log.n_users, n_communities), dtype=bool)
    followed[day, user, community] = True
    oldest = min(world.config.trigger_days, world.config.n_days - 1)
    by_day = [read_openings(world, number) for number in range(world.config.n_days - 1)]

    def after(openings: Openings, number: int) -> tuple[np.ndarray, np.ndarray]:
        rows = is_active[number, openings.user]
        return rows, followed[number, openings.user, world.items.community[openings.trigger]][rows]

    came = {
        age: np.concatenate([after(by_day[n], n + age)[1] for n in range(world.config.n_days - age)])
        for age in range(1, oldest + 1)
    }
    rows = [after(openings, n + 1)[0] for n, openings in enumerate(by_day)]
    strength = np.concatenate(
        [world.items.trigger_strength[o.trigger[r]] for o, r in zip(by_day, rows, strict=True)]
    )
    suits = np.concatenate([o.suits[r] for o, r in zip(by_day, rows, strict=True)])
    return {
        "follow-up of a trigger after 1 day": float(came[1].mean()),
        f"follow-up after 1 day / after {oldest} days": _ratio(came[1], came[oldest]),
        "strongest / weakest third of triggers": _ratio_of_thirds(strength, came[1]),
        "best / worst suited third of triggers": _ratio_of_thirds(suits, came[1]),
    }


def rankings(world: SyntheticWorld, log: Log) -> Figures:
    """
    Measure what the unexposed part of other scenarios' rankings tells about later home clicks.

    The rate of home clicks per ranked item is taken over the first and the last third of the unexposed
    ranks one day later, and over the first third one and four days later.
    """
    config = world.config
    day, user, item = log.clicks(scenario=HOME)
    clicked = np.zeros((config.n_days, log.n_users, world.items.n), dtype=bool)
    clicked[day, user, item] = True
    old = min(4, config.n_days - 1)
    parts = [unexposed(ranking, config.page_size) for ranking in log.rankings[: config.n_days - old]]
    fresh = np.concatenate([clicked[n + 1, part.user, part.item] for n, part in enumerate(parts)])
    stale = np.concatenate([clicked[n + old, part.user, part.item] for n, part in enumerate(parts)])
    place = np.concatenate([part.place for part in parts])
    anyone = len(day) / (config.n_days * log.n_users * world.items.n)
    return {
        "home clicks next day per unexposed ranked item": float(fresh.mean()),
        "its lift over any user and item": float(fresh.mean() / anyone),
        "first / last third of the unexposed ranks": _ratio(fresh[place < 1 / 3], fresh[place >= 2 / 3]),
        f"first third: next day / after {old} days": _ratio(fresh[place < 1 / 3], stale[place < 1 / 3]),
        "share of unclicked items ranked below a clicked one": _area(place, fresh),
    }


def drift(world: SyntheticWorld, log: Log, n_top: int = 100) -> Figures:
    """Measure how much of the most clicked items stays: first two against last two days."""
    day, _, item = log.clicks()
    last = world.config.n_days - 1
    counts = [np.bincount(item[rows], minlength=world.items.n) for rows in (day <= 1, day >= last - 1)]
    top = [set(np.argsort(-count, kind="stable")[:n_top].tolist()) for count in counts]
    total = np.sort(np.bincount(item))[::-1]
    return {
        f"share of the first days' top {n_top} still in it": len(top[0] & top[1]) / n_top,
        f"share of clicks on the top {n_top}": float(total[:n_top].sum() / total.sum()),
    }


def side_features(world: SyntheticWorld, log: Log) -> Figures:
    """Measure how much oftener two users' clicks share a category within an (age, gender) group."""
    _, user, item = log.clicks()
    last = world.config.n_days - 1
    group = np.concatenate([world.users(block, last).group for block in world.blocks(last)])
    share = np.zeros((len(group), world.config.n_clusters))
    np.add.at(share, (user, world.items.category_id[item] - 1), 1.0)
    clicked = share.sum(axis=1) > 0
    group, share = group[clicked], share[clicked] / share[clicked].sum(axis=1, keepdims=True)
    same, n_same = _shared_between_users(share, group)
    every, n_every = _shared_between_users(share, np.zeros_like(group))
    told = world.items.category_id == world.items.cluster + 1
    return {
        "lift of sharing a category within a profile group": float(
            (same / n_same) / ((every - same) / (n_every - n_same))
        ),
        "items whose features tell the truth": float(told.mean()),
    }


MEASUREMENTS = {
    "volume": volume,
    "hit rates": hit_rates,
    "communities": communities,
    "scenarios": scenarios,
    "leaks": leaks,
    "sessions": sessions,
    "triggers": triggers,
    "rankings": rankings,
    "drift": drift,
    "side features": side_features,
}


def _ratio(rows: np.ndarray, others: np.ndarray) -> float:
    """Divide two rates; the other one counts at least one case, so that nothing divides by zero."""
    return float(rows.mean() / max(others.mean(), 1.0 / len(others)))


def _ratio_of_thirds(value: np.ndarray, outcome: np.ndarray) -> float:
    thirds = np.array_split(outcome[np.argsort(value, kind="stable")], 3)
    return _ratio(thirds[2], thirds[0])


def _area(place: np.ndarray, is_hit: np.ndarray) -> float:
    """Give the area under the ROC curve of ranking by ``place``; ties count half."""
    _, tie, n_tied = np.unique(place, return_inverse=True, return_counts=True)
    rank = (np.cumsum(n_tied) - (n_tied - 1) / 2.0)[tie]
    n_hits = is_hit.sum()
    below = rank[is_hit].sum() - n_hits * (n_hits + 1) / 2.0
    return float(1.0 - below / (n_hits * (len(place) - n_hits)))


def _pairs_within(user: np.ndarray, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Pair rows of the same user at random: two arrays of row numbers."""
    order = np.lexsort((generator.random(len(user)), user))
    first, second = order[:-1], order[1:]
    same = user[first] == user[second]
    return first[same], second[same]


def _hit_rate(score: np.ndarray, seen: np.ndarray, wanted: np.ndarray, k: int) -> float:
    users = np.nonzero(wanted.any(axis=1))[0]
    ranked = np.where(seen[users] > 0, -np.inf, score[users])
    top = np.argsort(-ranked, axis=1, kind="stable")[:, :k]
    hits = np.take_along_axis(wanted[users], top, axis=1).sum(axis=1)
    return float((hits / wanted[users].sum(axis=1)).mean())


def _shared_between_users(share: np.ndarray, group: np.ndarray) -> tuple[float, int]:
    """Sum share_u . share_v over ordered pairs of different users of one group, and count the pairs."""
    total = np.zeros((group.max() + 1, share.shape[1]))
    np.add.at(total, group, share)
    n_pairs = (np.bincount(group) ** 2).sum() - len(group)
    return float((total**2).sum() - (share**2).sum()), int(n_pairs)
