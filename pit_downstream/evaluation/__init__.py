"""Measuring models on images."""
