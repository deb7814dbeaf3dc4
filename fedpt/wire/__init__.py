"""How coordinator and devices talk: messages, topics, and their bytes."""
