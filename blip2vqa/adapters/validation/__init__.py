"""What is refused before anything of an adapter is loaded."""
