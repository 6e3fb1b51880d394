"""Generated from `protos/robust_synthesis/v1` by `make protos`."""
