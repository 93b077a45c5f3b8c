"""What a network's kernel says before it is trained."""
