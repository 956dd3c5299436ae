"""One queue a model: requests that meet a busy model are answered together. Knows callables and rows, no models."""
