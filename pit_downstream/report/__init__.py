"""One-page report of recorded results, with missing measurements and the commands that fill them."""
