"""Models: queues, batches and the one door to them."""
