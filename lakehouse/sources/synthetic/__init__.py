"""
A seeded world of users, items and scenarios, generated day by day, with something true for each method.

``docs/synthetic_world.md`` documents what is planted; ``python -m lakehouse.sources.synthetic`` measures it.
"""

from lakehouse.sources.synthetic.config import SyntheticConfig
from lakehouse.sources.synthetic.world import SyntheticWorld
from lakehouse.sources.synthetic.writing import mapping_of_written, write_world

__all__ = ["SyntheticConfig", "SyntheticWorld", "mapping_of_written", "write_world"]
