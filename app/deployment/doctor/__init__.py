"""`tableside doctor`: reads how a stack is set up and says what does not fit together. It changes nothing."""
