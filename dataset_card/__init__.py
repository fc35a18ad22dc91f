"""DESCRIBE: the card of a dataset folder, its statistics and plots."""
