"""The services that run beside the tasks: as local processes, and the commands that talk to them."""
