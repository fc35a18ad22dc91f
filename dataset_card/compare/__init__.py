"""What changed between two description sets of one dataset: two VLMs, or one with two prompts."""
