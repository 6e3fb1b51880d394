"""What is measured: one file per part, each with a `measure` that returns numbers and pictures."""
