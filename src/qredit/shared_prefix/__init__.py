"""A group's prompt computed once: packing, attention, head, and which models it serves."""
