"""What the faces share: accessors, guards, request ids, and the one way errors leave."""
