"""What a person reads at the end of a run: tables on the terminal, charts, and pages."""
