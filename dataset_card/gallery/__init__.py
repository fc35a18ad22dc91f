"""A page to look through a dataset: every photograph with what each VLM says of it, and a reviewer's marks."""
