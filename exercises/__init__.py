"""Your half of the course: ten files to fill in, in order, and an encore."""
