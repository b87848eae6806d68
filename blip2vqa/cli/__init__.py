"""The commands: each one's `main` reads its arguments, calls the function that does the work, and prints a summary."""

COMMANDS = ("finetune", "infer", "caption", "generate", "exchange")
