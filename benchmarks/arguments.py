"""Which arguments can the benchmarks not run with? Told in one line, with exit code 2."""

import argparse
from datetime import date
from pathlib import Path

from pydantic import ValidationError

from benchmarks.swing_clicks import SHAPES
from models.swing import SwingConfig

KUAIRAND_LOG = "data/log_standard_4_22_to_5_08_pure.csv"


def at_least_one(text: str) -> int:
    """Read a whole number of at least 1, as argparse asks for it."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no whole number of at least 1")
    return int(text)


def iso_day(text: str) -> date:
    """Read a day, as argparse asks for it."""
    try:
        day = date.fromisoformat(text)
        if day == date.min:
            raise ValueError
        return day
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is no day, such as 2026-01-31") from None


def check_paths(parser: argparse.ArgumentParser, *paths: str | Path | None) -> None:
    """End the program where one of the paths that were given is not there."""
    for path in paths:
        if path and not Path(path).exists():
            parser.exit(2, f"there is no {path}\n")


def check_kuairand(parser: argparse.ArgumentParser, folder: str | None) -> None:
    """End the program where a folder of KuaiRand-Pure was given that has no log."""
    check_paths(parser, Path(folder) / KUAIRAND_LOG if folder else None)


def check_shapes(parser: argparse.ArgumentParser, names: str) -> None:
    """End the program where one of the names, which commas part, is no shape's."""
    if unknown := set(names.split(",")) - {*SHAPES, ""}:
        parser.exit(2, f"unknown shapes: {', '.join(sorted(unknown))}; there are {', '.join(SHAPES)}\n")


def swing_config(parser: argparse.ArgumentParser, **options: object) -> SwingConfig:
    """Give the options of an index; end the program where there are none such."""
    try:
        return SwingConfig(**options)
    except ValidationError as error:
        wrong = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()]
        parser.exit(2, f"{'; '.join(wrong)}\n")
