"""Training on Lightning: modules with their own step clock, checkpoints, and the run around them."""
