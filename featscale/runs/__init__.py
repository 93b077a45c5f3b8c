"""What a run is on disk: a directory named by the hash of its science, its record, and tables of many runs."""
