"""Register the classes that configs use with mmengine. Import this module for its side effect."""

from pit_downstream.training import hooks, metric, optim, preprocess  # noqa: F401
from pit_downstream.training import image_classifier as classifier  # noqa: F401
from pit_downstream.training import image_data as data  # noqa: F401
