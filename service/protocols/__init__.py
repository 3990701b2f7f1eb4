"""From HTTP to a call of a model, and back."""
