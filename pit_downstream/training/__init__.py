"""Training with mmengine's Runner: code shared by detectors and classifiers, and the classification recipes."""

from pit_downstream.utils.extras import require_extra

require_extra('train')
