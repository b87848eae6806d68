"""Questions by a chat endpoint."""
