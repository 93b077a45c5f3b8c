"""What the solvable model predicts: exponents and loss curves."""
