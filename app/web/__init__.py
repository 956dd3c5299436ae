"""What the blueprints share: accessors, guards, request ids, and the one way errors leave."""
