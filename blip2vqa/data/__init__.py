"""Tables of images, questions and answers: read, checked, split by image."""
