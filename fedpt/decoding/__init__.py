"""How an answer's tokens are chosen: sampling, steering with few logits, draft and verify. Pure."""
