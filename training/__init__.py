"""The offline half: one recipe per model, and what recipes share."""
