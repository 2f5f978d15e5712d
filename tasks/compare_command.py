"""
Compare the methods on days that were run, without a scheduler: what ``make compare`` does.

    python -m tasks.compare_command [--from DAY --to DAY | --last N] [--methods A,B] [--backbones A,B]
        [--seeds 1,2,3] [--k 50,100] [--evaluated N]
"""

import argparse
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, as_completed
from datetime import date
from typing import TYPE_CHECKING

from tasks.comparison_plan import VARIANTS, BadComparison, Plan, config_of, make_plan
from tasks.settings import Settings, load_settings

if TYPE_CHECKING:
    from tasks.compare import UnitReport


class TrainingKilled(OSError):
    """A process that trained ended without a word."""


OPTIONS = {
    "from": "first day of the window, YYYY-MM-DD",
    "to": "its last day",
    "last": "instead: the window is so many days, up to the last that is prepared",
    "evaluated": "how many of its last days are measured, default 1",
    "methods": "names, default the paper's six; or methods of the settings",
    "backbones": "names, default all",
    "seeds": "default 1,2,3",
    "k": "ascending, default those of the settings",
}


def main(arguments: list[str] | None = None) -> int:
    """Run the command; give the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tasks.compare_command", description=__doc__.split("\n\n")[0]
    )
    for name, text in OPTIONS.items():
        parser.add_argument(f"--{name}", help=text)
    given = vars(parser.parse_args(arguments))
    try:
        settings = load_settings()
        compare(_plan(given, settings), settings)
    except (ValueError, LookupError, OSError) as error:
        print(f"make compare: {error}", file=sys.stderr)
        return 1
    return 0


def compare(plan: Plan, settings: Settings) -> None:
    """Train, measure and conclude, telling each step; raises as those do."""
    # torch is slow to import: what was asked wrongly is told before
    from tasks.compare import conclude, measure_group
    from tasks.comparison import TITLES

    days = plan.evaluated_days
    print(
        f"learning from {plan.training_days[0]} .. {plan.training_days[-1]}, measuring {days[0]} .. "
        f"{days[-1]}: {len(plan.units)} trainings",
        flush=True,
    )
    for number, done in enumerate(_train_all(plan, settings), start=1):
        how = f"{done.seconds:6.1f} s" if done.is_new else "    kept"
        print(f"  {number:3} of {len(plan.units)}  {how}  {done.unit}", flush=True)
    for backbone in plan.backbones:
        for seed in plan.seeds:
            started = time.monotonic()
            _, is_new = measure_group(backbone, seed, plan, settings)
            how = f"{time.monotonic() - started:6.1f} s" if is_new else "    kept"
            print(f"  measured    {how}  {backbone}, seed {seed}", flush=True)
    kept = conclude(plan, settings)
    print("\n" + "\n\n".join(kept.comparison.table(name) for name in TITLES) + "\n")
    print(f"files: {kept.folder}   MLflow: {kept.address}{'' if kept.is_new else ' (as before)'}")


def _train_all(plan: Plan, settings: Settings) -> "Iterator[UnitReport]":
    """
    Train every unit, as many at a time as ``n_threads`` of the settings allows for theirs.

    One that fails ends the others that have not begun; what is done is kept.
    """
    from tasks.compare import train_unit

    threads = max(config_of(unit, settings).n_threads for unit in plan.units)
    n_processes = min(max(1, settings.n_threads // threads), len(plan.units))
    if n_processes == 1:
        yield from (train_unit(unit, plan, settings) for unit in plan.units)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(n_processes, mp_context=context, initializer=_end_with_parent) as pool:
        try:
            running = [pool.submit(train_unit, unit, plan, settings) for unit in plan.units]
            for done in as_completed(running):
                yield done.result()
        except BrokenExecutor as error:
            # The pool would wait for ever for one that was being started when another died.
            for child in multiprocessing.active_children():
                child.kill()
            raise TrainingKilled(
                "a training process was killed, for memory perhaps; what is done is kept: run it again, with "
                "TRIBUTARY_N_THREADS=1 for one training at a time"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """End this process with the one that started it, however that ended: it would wait for work for ever."""

    def watch() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _plan(given: dict[str, str | None], settings: Settings) -> Plan:
    """Read what was typed; raises BadComparison."""
    first, last, n_days = given["from"], given["to"], given["last"]
    return make_plan(
        settings,
        first_day=_day("FROM", first) if first else None,
        last_day=_day("TO", last) if last else None,
        n_days=_numbers("LAST", n_days)[0] if n_days else None,
        n_evaluated=_numbers("EVALUATED", given["evaluated"])[0] if given["evaluated"] else 1,
        methods=_names(given["methods"]) or VARIANTS,
        backbones=_names(given["backbones"]),
        **{
            name: _numbers(typed, given[option])
            for name, option, typed in (("seeds", "seeds", "SEEDS"), ("ks", "k", "K"))
            if given[option]
        },
    )


def _day(name: str, text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise BadComparison(f"{name}={text} is not a day; write YYYY-MM-DD") from None


def _names(text: str | None) -> Sequence[str]:
    return tuple(name.strip() for name in text.split(",")) if text else ()


def _numbers(name: str, text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        one = name in ("LAST", "EVALUATED")
        form = f"one whole number; write {name}=7" if one else f"list of whole numbers; write {name}=1,2,3"
        raise BadComparison(f"{name}={text} is no {form}") from None


if __name__ == "__main__":
    sys.exit(main())
