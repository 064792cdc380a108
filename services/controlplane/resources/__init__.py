"""Resources: checked, planned, applied, kept with every change, described."""
