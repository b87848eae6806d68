"""Questions from a chat endpoint that sees pictures."""
