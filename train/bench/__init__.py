"""What the training loop costs, measured beside a bare loop, the transformers `Trainer`, and single modalities."""
