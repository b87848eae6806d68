"""Pages that a person looks at in a browser: each one file that needs no other, opens from disk and asks no network."""
