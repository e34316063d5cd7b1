"""One paper, one file: networks as plain `torch.nn` modules."""
