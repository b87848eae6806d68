"""The one exception for what the user can mend: scripts print its lines and exit with code 2, without a traceback."""


class InputError(Exception):
    """Wrong input or arguments. Each problem is one line: what, which value, what to do."""

    def __init__(self, *problems: str):
        self.problems = list(problems)
        super().__init__("\n".join(self.problems))
