"""The commands: each one's `main` reads its arguments, calls the function that does the work, and prints a summary."""

from blip2vqa.utils.console import quiet_libraries

quiet_libraries()  # before the commands' modules import transformers, which reads the environment at its import
