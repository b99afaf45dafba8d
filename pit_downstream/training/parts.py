"""What configs name: importing this registers it with mmengine."""

from . import classifier, data, hooks, metric, optim, preprocess  # noqa: F401
