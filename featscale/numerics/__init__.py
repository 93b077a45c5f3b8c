"""Numerical tools that know nothing of tasks or networks."""
