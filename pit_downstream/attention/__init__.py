"""Attention made visible: traces of a forward pass, measures of collapse, figures."""
