"""ASK: images -> VLM -> one description set; and the root command line."""
