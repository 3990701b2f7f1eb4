"""What training produced: manifests and files."""
