"""The one loop: metrics of a predictor on samples under conditions."""
