"""One step of the day each: read partitions, call a model, write a partition."""
