"""The cluster's engine: verl 0.9.1, with Ray, FSDP2 and vLLM. Importing this imports none of them."""
