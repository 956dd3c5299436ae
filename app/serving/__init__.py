"""What one worker serves: versions with their state, and how a host's workers agree on them."""
