"""The data contract: table schemas, partitions, releases, the SQL runner and the sources."""
