"""The nouns of the project, in the standard library alone."""
