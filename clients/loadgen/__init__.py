"""A load generator for a gateway: `python -m clients.loadgen --help`, from the root of the repository, with the extra `dev`."""
