"""One plain loop, datasets, recipes."""
