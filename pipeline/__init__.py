"""What every stage agrees on: channels, grids, configuration, stores, provenance and the command line."""
