"""Mathematics without weights: no files, no devices, no logging."""
