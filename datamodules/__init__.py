"""Sources of data; a batch is a pure function of (seed, step)."""
