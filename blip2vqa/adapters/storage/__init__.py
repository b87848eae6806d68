"""Where adapters are kept: a local store, archives, the Hub."""
