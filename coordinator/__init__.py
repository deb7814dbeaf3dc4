"""The coordinator: rounds, aggregation, steering, distillation, logit workers."""
