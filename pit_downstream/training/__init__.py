"""Training on mmengine's Runner: what detectors and classifiers share, and classifiers by their papers' recipes."""
