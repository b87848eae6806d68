"""VQA data from a product catalogue: read it, ask about its pictures, keep what a picture is needed for."""
