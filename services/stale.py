"""How is it told which partitions are stale, in a few lines?"""

from datetime import date

from lakehouse.lineage import Stale

MOST_DAYS = 6


def stale_lines(stale: list[Stale]) -> list[str]:
    """Give a line per stale day, newest left out where there are many, and one that tells what to run."""
    if not stale:
        return []
    by_day: dict[date, list[str]] = {}
    for each in stale:
        names = by_day.setdefault(each.day, [])
        if each.table not in names:
            names.append(each.table)
    days = sorted(by_day)
    lines = [f"  {day} {', '.join(by_day[day])}" for day in days[:MOST_DAYS]]
    if len(days) > MOST_DAYS:
        lines.append(f"  and {len(days) - MOST_DAYS} days more, up to {days[-1]}")
    first = stale[0]
    return [
        *lines,
        f"  because {first.table} of {first.day}: {first.reason}",
        f"  run make backfill FROM={days[0]} TO={days[-1]} REPROCESS=completed",
    ]


def print_stale(stale: list[Stale]) -> None:
    """Print what is stale now."""
    if stale:
        print("\nstale now:", *stale_lines(stale), sep="\n", flush=True)
    else:
        print("\nstale now: nothing", flush=True)
