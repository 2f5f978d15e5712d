"""What does ``make down`` do? Stop every process of a state folder's services; its state stays."""

import argparse
import sys

from services.state import ServicesError, State
from services.supervisor import Supervisor, take_down
from tasks.settings import BadSettings, Settings, load_settings


def main(arguments: list[str] | None = None) -> int:
    """Run the command; give the exit code."""
    parser = argparse.ArgumentParser(prog="python -m services.down", description=__doc__)
    parser.parse_args(arguments)
    try:
        bring_down(load_settings())
    except (BadSettings, ServicesError) as error:
        print(f"make down: {error}", file=sys.stderr)
        return 1
    return 0


def bring_down(settings: Settings) -> None:
    """
    Stop the services of the settings' state folder, and whatever a crash left of them.

    Raises:
        ServicesError: another `make up` or `make down` is at work.
    """
    state = State(settings.var)
    supervisor = Supervisor(state)
    if not state.folder.is_dir() or not (supervisor.is_up() or supervisor.session()):
        print(f"No services run for {state.var}")
        return
    with state.lock():
        print(f"Stopping the services of {state.var}; running tasks have 30 s to end", flush=True)
        take_down(supervisor, report=lambda name: print(f"  stopped  {name}", flush=True))
        print("All are stopped; `make up` starts them again")


if __name__ == "__main__":
    sys.exit(main())
