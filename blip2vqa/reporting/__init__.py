"""What a person reads at the end of a run: tables on the terminal and the model card beside the adapter."""
