"""Sources: a published layout or a generated world as canonical inputs, day by day."""

from lakehouse.sources.config import SourceConfig, effective_mapping
from lakehouse.sources.source import Source, SourceError

__all__ = ["Source", "SourceConfig", "SourceError", "open_source", "timezone_of"]


def open_source(config: SourceConfig) -> Source:
    """
    Open the configured source.

    Raises:
        SourceError: its folder or a file it cannot do without is not there or not readable.
    """
    if config.preset == "synthetic":
        from lakehouse.sources.synthetic import SyntheticWorld

        return SyntheticWorld(config.synthetic)
    from lakehouse.sources.reader import MappedSource

    if config.data is None:
        raise SourceError(f"source {config.preset} needs DATA (source.data): the folder that holds its files")
    return MappedSource(effective_mapping(config), config.data)


def timezone_of(config: SourceConfig) -> str:
    """Tell the source's time zone without opening it; the generated world lives in UTC."""
    return "UTC" if config.preset == "synthetic" else effective_mapping(config).timezone
