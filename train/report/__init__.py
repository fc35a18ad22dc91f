"""An experiment as one self-contained page: table, curves, classes, calibration, distances, attention, errors."""
