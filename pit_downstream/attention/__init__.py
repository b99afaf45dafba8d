"""Attention analysis: traces of a forward pass, measures of collapse, figures."""
