"""What configs name: importing this registers it with mmengine."""

from pit_downstream.training import classifier, data, hooks, metric, optim, preprocess  # noqa: F401
