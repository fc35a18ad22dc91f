"""AUDIT: copies, near-copies, contradictions and leaks of a source, and splits that are free of them."""
