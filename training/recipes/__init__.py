"""One module per recipe; its file name, with hyphens, is the recipe's name."""
