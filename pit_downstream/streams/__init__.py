"""Random numbers that belong to an image, for whatever is done to it: corruptions and attacks."""
