"""The offline half: one recipe per model, and the few things that recipes share."""
