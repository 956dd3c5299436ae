"""The operator API, on the control plane and behind the admin key."""
