"""The algorithms: Arrow tables and arrays in and out."""
