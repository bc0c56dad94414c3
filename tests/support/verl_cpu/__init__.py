"""A CPU as verl's device, for tests.

gloo in the place of NCCL, a transformers model behind verl's rollout interface, and Ray told of GPUs that are not there
(`ray_kwargs.ray_init.num_gpus`). Nothing of it belongs to the package.
"""
