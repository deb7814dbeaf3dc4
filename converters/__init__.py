"""Between transformers, PEFT and GGUF."""
