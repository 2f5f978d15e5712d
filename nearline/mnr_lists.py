"""What are MNR's lists called in the online store? One list per scenario: ``mnr@<scenario>``."""

import re

PREFIX = "mnr@"
RELEASE = "mnr"
"""What stands for a release in the store: these lists belong to none."""


def list_name(scenario: str) -> str:
    """Name a scenario's list; other letters than a name can have, and the dot, become ``.<hex>`` (UTF-8)."""
    return PREFIX + re.sub(
        r"[^A-Za-z0-9_-]", lambda match: "".join(f".{byte:02x}" for byte in match[0].encode()), scenario
    )
