"""featscale: find out whether, when and by how much feature learning bends a neural scaling law."""
