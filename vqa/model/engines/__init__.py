"""Engines that answer questions about views: transformers, vLLM, and servers with OpenAI's chat interface."""
