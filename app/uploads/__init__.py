"""Publishing by upload: a process of its own unpacks, checks and publishes what a client has sent."""
