"""
How is the click worker tried? By the clicks of a day that was ingested, sent again at a rate.

    python -m services.replay_clicks [--day 2022-05-05] [--rate 20] [--clicks 1000]
"""

import argparse
import sys
from collections.abc import Callable
from contextlib import closing
from datetime import date


def main(arguments: list[str] | None = None) -> int:
    """Run the command; give the exit code."""
    parser = argparse.ArgumentParser(prog="python -m services.replay_clicks", description=__doc__)
    parser.add_argument("--day", help="default: the newest day that has clicks")
    parser.add_argument("--rate", default="20", help="clicks a second, 0 for as fast as it goes")
    parser.add_argument("--clicks", help="send the first so many of the day")
    options = parser.parse_args(arguments)
    try:
        _replay(options)
    except (ValueError, LookupError, OSError) as error:
        print(f"replay-clicks: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("replay-clicks: interrupted; what was sent stays sent", file=sys.stderr)
        return 130
    return 0


def _replay(options: argparse.Namespace) -> None:
    # Imported here: seconds, in which Ctrl-C would be a traceback.
    from lakehouse import tables
    from lakehouse.store import Lakehouse
    from nearline.click_source import open_click_source
    from nearline.replay_clicks import clicks_of, replay
    from tasks.settings import load_settings

    rate = _number("RATE", options.rate, least=0)
    n_clicks = None if options.clicks is None else _number("CLICKS", options.clicks, least=1)
    settings = load_settings()
    lakehouse = Lakehouse(settings.lakehouse_root)
    days = lakehouse.days(tables.CLICK)
    if not days:
        raise LookupError(f"no day below {settings.lakehouse_root} has clicks: `make run` brings some in")
    day = _day(options.day) if options.day else max(days)
    columns = ["user_id", "item_id", "event_time"]
    clicks = clicks_of(lakehouse.read(tables.CLICK, day, columns=columns))[:n_clicks]
    with closing(open_click_source(settings.clicks_url, worker="replay")) as source:
        seconds = replay(clicks, source, per_second=rate or None, on_sent=_progress(len(clicks)))
    print(f"sent {len(clicks)} clicks of {day} in {seconds:.1f} s")


def _number(name: str, text: str, *, least: int) -> int:
    if not text.isdecimal() or int(text) < least:
        raise ValueError(f"{name}={text} is not a whole number of at least {least}")
    return int(text)


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ValueError(f"DAY={text} is not a day; write YYYY-MM-DD") from None


def _progress(n: int) -> Callable[[int], None]:
    def show(sent: int) -> None:
        if sys.stderr.isatty():
            print(f"\r{sent}/{n}", end="" if sent < n else "\n", file=sys.stderr, flush=True)

    return show


if __name__ == "__main__":
    sys.exit(main())
