"""Hugging Face style checkpoints of dual-tower models, read through transformers."""
