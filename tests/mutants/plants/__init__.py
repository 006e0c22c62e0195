"""Plants by part of the program. Read by `all_plants`, and nothing else."""
