"""`vl-dermnet bench build`: index, build and audit beside what people would use instead."""
