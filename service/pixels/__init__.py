"""From bytes to arrays, and back."""
