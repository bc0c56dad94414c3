"""Sampling with vLLM, in this process or on a server: token ids in, token ids out, weights pushed as they change."""
