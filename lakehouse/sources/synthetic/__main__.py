"""
Measure the planted signals of a synthetic world, or write its days as files.

    python -m lakehouse.sources.synthetic [--write FOLDER] [FIELD=VALUE ...]
"""

import argparse
import time

from pydantic import ValidationError

from lakehouse.sources.synthetic import SyntheticConfig, SyntheticWorld, write_world
from lakehouse.sources.synthetic.effects import MEASUREMENTS
from lakehouse.sources.synthetic.log import read_log

MEASURABLE_PAIRS = 20_000_000


def main() -> None:
    """Print one line per measured figure, or write the world and print the rows per second."""
    parser = argparse.ArgumentParser(prog="python -m lakehouse.sources.synthetic", description=__doc__)
    parser.add_argument("fields", nargs="*", metavar="FIELD=VALUE", help="fields of SyntheticConfig")
    parser.add_argument("--write", metavar="FOLDER", help="write <FOLDER>/<table>/<day>.parquet instead")
    arguments = parser.parse_args()
    try:
        pairs = [field.split("=", 1) for field in arguments.fields]
        config = SyntheticConfig.model_validate(dict(pairs))
    except ValidationError as error:
        first = error.errors()[0]
        parser.error(f"{'.'.join(map(str, first['loc'])) or 'fields'}: {first['msg']}")
    except ValueError:
        parser.error("fields are given as FIELD=VALUE, e.g. n_users=500")
    world = SyntheticWorld(config)
    if arguments.write:
        start = time.perf_counter()
        n_rows = write_world(world, arguments.write)
        seconds = time.perf_counter() - start
        print(f"{n_rows} rows of {config.n_days} days in {seconds:.1f} s: {n_rows / seconds:.0f} rows/s")
        return
    if config.n_days < 3 or config.n_scenarios < 2 or config.n_users * config.n_items > MEASURABLE_PAIRS:
        parser.error(
            f"measuring needs n_days >= 3, n_scenarios >= 2 and n_users * n_items <= {MEASURABLE_PAIRS}; "
            "--write takes any world"
        )
    log = read_log(world)
    for title, measure in MEASUREMENTS.items():
        print(title)
        for figure, value in measure(world, log).items():
            print(f"  {figure:<68} {value:10.4g}")


if __name__ == "__main__":
    main()
