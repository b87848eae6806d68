"""What is known of the products and their pictures."""
