"""The operator API: control plane, with the admin key."""
