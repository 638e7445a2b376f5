"""One batch through one network."""
