"""One application, one file; a TOML file beside holds values only."""
