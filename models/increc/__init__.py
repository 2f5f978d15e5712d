"""IncRec: cross-scenario incremental samples, three user towers over any backbone."""
