"""What the blueprints share: access control, request handling, responses and error handling."""
