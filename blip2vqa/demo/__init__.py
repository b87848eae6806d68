"""The demo: a page in a browser to ask base and adapters about pictures, and the server behind it."""
