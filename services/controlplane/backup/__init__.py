"""All state of the control plane in one file."""
