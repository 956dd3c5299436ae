"""The model repository on disk: its paths, contracts with their checksums, and model.toml."""
