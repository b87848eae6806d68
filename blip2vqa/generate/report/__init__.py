"""What a person looks at of a made data set."""
