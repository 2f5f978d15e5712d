"""What does ``make pi2i-study`` do? It reads what was typed, runs the study, and keeps what came out."""

import argparse
import sys
from datetime import date
from pathlib import Path

from tasks.compare_kept import digest
from tasks.pi2i_results import PI2IStudy
from tasks.pi2i_study import TRUNCATIONS, VARIANTS, BadStudy, Plan, pi2i_study
from tasks.settings import BASE, Settings, load_settings


def main(arguments: list[str] | None = None) -> int:
    """Run the command; give the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tasks.pi2i_study_command", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument("--day", help="one day, YYYY-MM-DD")
    parser.add_argument("--from", dest="first", metavar="DAY", help="first of several days")
    parser.add_argument("--to", dest="last", metavar="DAY", help="last of them")
    parser.add_argument("--seeds", help="seeds of samples and weights, e.g. 1,2,3; default the settings'")
    parser.add_argument("--variants", help=f"of {', '.join(VARIANTS)}; default all")
    parser.add_argument("--truncations", help=f"default {','.join(map(str, TRUNCATIONS))}")
    parser.add_argument(
        "--towers", default=BASE, help=f"methods of the settings to compare with; default {BASE}"
    )
    options = parser.parse_args(arguments)
    try:
        settings = load_settings()
        plan = _plan(options, settings)
        study = pi2i_study(plan, settings, tell=lambda line: print(line, flush=True))
        print(study.markdown())
        print(_keep(study, plan, settings))
    except (ValueError, LookupError, OSError) as error:
        print(f"make pi2i-study: {error}", file=sys.stderr)
        return 1
    return 0


def _plan(options: argparse.Namespace, settings: Settings) -> Plan:
    """Read what was typed; raises BadStudy."""
    if bool(options.day) == bool(options.first or options.last) or bool(options.first) != bool(options.last):
        raise BadStudy("name the days: DAY=2022-05-05, or FROM=2022-05-03 TO=2022-05-05")
    try:
        first, last = (date.fromisoformat(text or options.day) for text in (options.first, options.last))
    except ValueError as error:
        raise BadStudy(f"{error}; a day is written YYYY-MM-DD") from error
    seeds = _numbers("SEEDS", options.seeds) or ((settings.pi2i.seed if settings.pi2i else 0),)
    kept = tuple(t for t in TRUNCATIONS if t <= settings.swing.truncation)
    variants = _names(options.variants) or tuple(VARIANTS)
    truncations = _numbers("T", options.truncations) or kept
    return Plan(first, last, seeds, variants, truncations, _names(options.towers))


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip())) if text else ()


def _numbers(name: str, text: str | None) -> tuple[int, ...]:
    try:
        return tuple(dict.fromkeys(int(part) for part in text.split(","))) if text else ()
    except ValueError as error:
        raise BadStudy(f"{name}={text} is no list of whole numbers; write {name}=1,2,3") from error


def study_folder(plan: Plan, settings: Settings) -> Path:
    """Give the folder of a study's files, which follows from the plan and the settings behind its figures."""
    towers = {name: settings.methods[name].model_dump() for name in sorted(plan.towers)}
    parts = ("pi2i", "swing", "evaluation", "window_days", "history_length")
    of_figures = settings.model_dump(mode="json", include=set(parts), exclude={"pi2i": {"n_threads"}})
    key = digest([plan.seeds, sorted(plan.variants), sorted(plan.truncations), towers, of_figures])
    days = "_".join(dict.fromkeys((str(plan.first), str(plan.last))))
    return settings.var / "pi2i_study" / f"{days}-{key[:12]}"


def _keep(study: PI2IStudy, plan: Plan, settings: Settings) -> str:
    """Write tables and figures below the state folder, log them to MLflow, and tell where they are."""
    # matplotlib and mlflow are slow to import: what was asked wrongly is told before
    from tasks.pi2i_figure import study_figure
    from tasks.tracking import log_pi2i_study

    folder = study_folder(plan, settings)
    folder.mkdir(parents=True, exist_ok=True)
    figure = study_figure(study)
    (folder / "study.md").write_text(study.markdown() + "\n")
    (folder / "study.csv").write_text(study.csv())
    figure.savefig(folder / "study.png", metadata={"Software": None})
    logged = log_pi2i_study(study, figure, settings)
    return f"files: {folder}   MLflow: {logged.address}{'' if logged.is_new else ' (as before)'}"


if __name__ == "__main__":
    sys.exit(main())
