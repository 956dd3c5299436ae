"""The model repository extension of the Open Inference Protocol: control plane, with the admin key."""
