"""Tables of images, questions and answers: they are read, checked and split by image here."""
