"""One page over the kept records: what was measured, side by side, with what is missing and how to fill it."""
