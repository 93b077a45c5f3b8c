"""Figures: one module each, with data(table) → arrays and draw(axes, arrays)."""
