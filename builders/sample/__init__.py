"""Procedural photographs of skin with lesions, in DermNet's layout, with the truth about each beside them."""

from builders.sample.layout import ATTRIBUTES_FILE, SampleSummary, write_sample

__all__ = ["ATTRIBUTES_FILE", "SampleSummary", "write_sample"]
