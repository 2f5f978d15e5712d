"""What runs beside the daily cycle: the online store and its writers."""
