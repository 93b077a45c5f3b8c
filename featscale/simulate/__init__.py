"""Simulation of the projected-gradient model: the readable definition and the exact fast form."""
