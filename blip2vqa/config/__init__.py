"""Every argument, and how flags, JSON and YAML become one; no model code is imported."""
