"""The model repository on disk: `models/<name>/<version>/`, published atomically, never changed."""
