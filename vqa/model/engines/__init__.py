"""Engines that answer questions about views: transformers, vLLM, chat servers."""
