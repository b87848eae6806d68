"""Questions: by templates, a model or a chat endpoint."""
