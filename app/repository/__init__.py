"""Reading versions: paths, contracts and their checksums, and model.toml."""
