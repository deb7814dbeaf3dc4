"""The assistant over HTTP: OpenAI's protocol, our own for the command line, and a chat page."""
