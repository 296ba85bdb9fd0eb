"""The built-in page: a chat that shows thinking while it happens, and the server's state. Static files."""
