"""Training with mmengine's Runner: code shared by detectors and classifiers, and the classification recipes."""
