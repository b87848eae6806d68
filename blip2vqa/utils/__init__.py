"""What every other part may use: errors, files, processes; no model and no table."""
