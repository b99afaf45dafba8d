"""Register the classes that configs use with mmengine. Import this module for its side effect."""

from pit_downstream.training import classifier, data, hooks, metric, optim, preprocess  # noqa: F401
