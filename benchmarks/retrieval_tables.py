"""How is PI2I beside its peers shown? Tables of measured rows, one for each method and seed."""

import numpy as np

from benchmarks.running import print_table

KS = (50, 100, 200, 500)
JUDGED_K = 100
OURS = "PI2I"


def lead_of_ours(measured: list[dict]) -> float | None:
    """Give PI2I's HR@100 over that of the best peer, means of the seeds; None without a peer."""
    values: dict[str, list[float]] = {}
    for row in measured:
        values.setdefault(row["method"], []).append(row["hit_rate"][JUDGED_K]["value"])
    means = {name: float(np.mean(of_method)) for name, of_method in values.items()}
    best = max((mean for name, mean in means.items() if name != OURS), default=0.0)
    return means[OURS] / best if best else None


def print_tables(measured: list[dict]) -> None:
    """Print every method's figures, then PI2I minus each peer."""
    of_all = measured[0]["hit_rate"][KS[0]]
    print(f"{of_all['n_users']} users, {of_all['n_targets']} targets")
    print_table(
        ("method", "seed", "epochs", "s", "CPU s", *(f"HR@{k}" for k in KS)),
        [
            (
                row["method"],
                row["seed"],
                row["epochs"],
                f"{row['seconds']:.0f}",
                f"{row['cpu_seconds']:.0f}",
                *("{value:.3f} [{low:.3f}, {high:.3f}]".format(**row["hit_rate"][k]) for k in KS),
            )
            for row in measured
        ],
    )
    peers = [row for row in measured if row["method"] != OURS]
    if peers:
        print("PI2I minus the peer, points")
        print_table(("peer", "seed", *(f"HR@{k}" for k in KS)), [_lead(row) for row in peers])


def _lead(row: dict) -> tuple:
    points = [{name: 100 * row["pi2i_leads"][k][name] for name in ("value", "low", "high")} for k in KS]
    cells = ("{value:+.1f} [{low:.1f}, {high:.1f}]".format(**each) for each in points)
    return (row["method"], row["seed"], *cells)
