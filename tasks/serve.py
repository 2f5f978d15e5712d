"""Which commands change what serves? ``python -m tasks.serve publish | rollback | approve``."""

import argparse
import sys

from tasks.decide import approve, rollback
from tasks.publish import PublishReport, publish_release
from tasks.settings import load_settings


def main(arguments: list[str] | None = None) -> int:
    """Run the command; give the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tasks.serve", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("publish", help="serve the release that the alias champion names")
    for name, what in (
        ("rollback", "default: the one that served before"),
        ("approve", "default: challenger"),
    ):
        command = commands.add_parser(name, help=f"move the alias champion and publish; {what}")
        command.add_argument("--version", help="version of the registered model")
        command.add_argument("--reason", default=name, help="kept in the promotion log")
    command.add_argument("--force", metavar="REASON", help="why it may serve without having passed its gates")
    options = parser.parse_args(arguments)
    try:
        settings = load_settings()
        if options.command == "publish":
            report = publish_release(settings)
        elif options.command == "rollback":
            report = rollback(settings, options.version, reason=options.reason)
        else:
            report = approve(settings, options.version, reason=options.reason, force=options.force)
    except (ValueError, LookupError, OSError) as error:
        print(f"{options.command}: {error}", file=sys.stderr)
        return 1
    print(_describe(report))
    return 0


def _describe(report: PublishReport) -> str:
    if report.version is None:
        return report.status
    users = f", {report.n_users} users loaded" if report.status == "published" else ""
    note = f"; {report.note}" if report.note else ""
    return f"{report.status}: version {report.version} of {report.day}{users}{note}"


if __name__ == "__main__":
    sys.exit(main())
