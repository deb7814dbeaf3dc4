"""Local fine-tuning with torch, in a process of its own: its memory and its crashes stay in it."""
