"""PUBLISH: a dataset folder, or a model folder, to a Hub repository in one commit that is whole or absent."""
