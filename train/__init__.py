"""LEARN: fusion classifiers from the published dataset."""
