"""The model repository extension of the Open Inference Protocol, on the control plane and behind the admin key."""
